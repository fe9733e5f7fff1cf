"""Rows of the page on the halves of a model's blocks, from halves_prompts.csv.

python -m docs.findings.halves catalog/halves.yml     writes that table from the study
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pandas as pd
from docs.findings.estimates import Estimate, mean_of

import blockcoupling as bc

HERE = Path(__file__).parent
K = 10
PROMPT = ["checkpoint", "dataset", "prompt"]


def main(catalog: str) -> None:
    """Write halves_prompts.csv: one row a checkpoint and prompt."""
    study = bc.open_catalog(catalog)
    coupling, spectra, values = (
        study.search(kind=kind).frame() for kind in ("coupling", "spectra", "singular_values")
    )
    excess = coupling[coupling["k"] == K].pivot_table(
        index=PROMPT, columns="variant", values="excess"
    )
    departure = spectra.groupby(PROMPT)["departure_from_normality"].mean()
    cosine = values[values["k"] <= K].groupby(PROMPT)["uv_cosine"].mean()
    table = excess.add_prefix("excess_").join([departure, cosine]).reset_index()
    table.to_csv(HERE / "halves_prompts.csv", index=False, float_format="%.5g")


@cache
def prompts(checkpoint: str) -> pd.DataFrame:
    """The prompts at a checkpoint."""
    table = pd.read_csv(HERE / "halves_prompts.csv").set_index(PROMPT)
    return table.xs(checkpoint)


def difference(one: str, other: str) -> Estimate:
    """Excess coupling of one variant minus that of another, trained, over prompts."""
    trained = prompts("main")
    return mean_of(trained[f"excess_{one}"] - trained[f"excess_{other}"])


def trained_minus_untrained(column: str) -> Estimate:
    """What training has changed, over prompts."""
    return mean_of(prompts("main")[column] - prompts("init")[column])


def rows() -> list[list[str]]:
    """The questions, with their answers."""
    trained, count = prompts("main"), len(prompts("main"))
    halves = {name: mean_of(trained[f"excess_{name}"]) for name in ("attention", "mlp")}
    more, detached = difference("mlp", "attention"), difference("detached", "frobenius")
    cosine, untrained = (mean_of(each["uv_cosine"]) for each in (trained, prompts("init")))
    departed = trained_minus_untrained("departure_from_normality")
    return [
        [
            "Which half of its blocks is coupled?",
            "both, the MLPs more than attention",
            f"excess of MLPs {halves['mlp']}, of attention {halves['attention']}; difference "
            f"{more}; {count} prompts",
            "an interval of the difference with 0",
            more.smallest,
        ],
        [
            "Is it a matter of norms, attention weights and gates?",
            "no: held constant, the coupling is larger",
            f"excess of detached Jacobians minus that of J {detached}",
            "an interval below 0",
            detached.smallest,
        ],
        [
            "Do blocks stretch the directions that they act on most?",
            "no, they reverse them",
            f"mean cos(u_k, v_k), k ≤ {K}: {cosine}; untrained {untrained}",
            "an interval with 0, or above it",
            cosine.smallest,
        ],
        [
            "Does training make blocks more normal maps?",
            "hardly",
            f"departure from normality {departed} against untrained, where it is "
            f"{mean_of(prompts('init')['departure_from_normality'])}",
            "a change of more than 0.1",
            departed.smallest,
        ],
    ]


if __name__ == "__main__":
    main(sys.argv[1])
