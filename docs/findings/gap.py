"""Tables of the page on setting coupling where there is a gap to change, from gap_arms.csv."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from docs.findings.estimates import Estimate, p_text, table

from blockcoupling.config.intervention import Intervention
from blockcoupling.lab.intervention.arms import COUPLING, LOSS, TOKENS
from blockcoupling.lab.intervention.statistics import adjust_prespecified, compare, judge

HERE = Path(__file__).parent
STUDY = HERE.parents[1] / "config" / "studies" / "gap.yaml"
GAP, TRAINING, HELDOUT = (f"{name}.nats_per_byte" for name in ("gap", "training", "heldout"))


@cache
def section() -> Intervention:
    """What the study fixed before it ran."""
    asked = yaml.safe_load(STUDY.read_text(encoding="utf-8"))["intervention"]
    return Intervention.model_validate({"doses": ["couple"], **asked})


@cache
def comparisons() -> pd.DataFrame:
    """Every arm against the control, from the kept checkpoints of all members."""
    members = pd.read_csv(HERE / "gap_arms.csv", keep_default_na=False, na_values=[""])
    members["stratum"] = ""
    found = pd.DataFrame(compare(members, section(), TRAINING))
    return judge(adjust_prespecified(found, section(), {}), section())


def of(arm: str, outcome: str = GAP, at: str = LOSS, against: str = "plain") -> Any:
    """One comparison, with the control if nothing else is named."""
    found = comparisons()
    found = found[(found["analysis"] == "difference") & (found["against"] == against)]
    ((_, row),) = found[
        (found["arm"] == arm) & (found["outcome"] == outcome) & (found["at"] == at)
    ].iterrows()
    return row


def difference(arm: str, outcome: str = GAP, at: str = LOSS, against: str = "plain") -> Estimate:
    """Its mean difference."""
    row = of(arm, outcome, at, against)
    return Estimate(row["estimate"], row["low"], row["high"])


def arms() -> str:
    """Every arm against the control: what it did to coupling, and to the gap."""
    header = [
        "arm", "coupling", "pairs", "gap", "minus the control's pairs", "p of equivalence",
        "detectable", "verdict", "held-out loss at equal tokens",
    ]  # fmt: skip
    found = comparisons()
    shown = found[(found["analysis"] == "difference") & (found["at"] == LOSS)]
    shown = shown[(shown["against"] == section().control) & (shown["outcome"] == GAP)]
    rows = []
    for row in shown.to_dict("records"):
        compared = row["pairs"] > 1
        rows.append(
            [
                str(row["arm"]),
                str(difference(row["arm"], COUPLING, TOKENS)),
                f"{row['pairs']} of {of(row['arm'], GAP, TOKENS)['pairs']}",
                f"{row['mean']:.3f}" if compared else "—",
                str(difference(row["arm"])) if compared else row["note"].split(";")[0],
                p_text(row["p_equivalent"]).removeprefix("p = ") if compared else "—",
                f"{row['detectable']:.3f}" if compared else "—",
                row["verdict"] or "—",
                str(difference(row["arm"], HELDOUT, TOKENS)),
            ]
        )
    return table(header, rows)


def rows() -> list[list[str]]:
    """As `population.rows`."""
    less, more, sham = "couple -0.01", "couple 0.1", "sham"
    margin = section().smallest_effect[GAP]
    equivalent = max(of(arm)["p_equivalent"] for arm in (less, more))
    return [
        [
            "Does setting coupling change the gap, at equal training loss?",
            "**no, by less than a fifth of it**",
            f"gap {of(more)['mean_against']:.2f}; "
            f"coupling {difference(less, COUPLING, TOKENS)}: gap {difference(less)}; "
            f"coupling {difference(more, COUPLING, TOKENS)}: gap {difference(more)}; "
            f"both within ±{margin} (equivalence, {p_text(equivalent)})",
            f"a difference beyond ±{margin}, or no positive control that differs",
            f"{of(less)['detectable']:.3f}; {of(more)['detectable']:.3f}",
        ],
        [
            "Could this study have shown a change?",
            "yes: half of the text moves the gap beyond the margin; even dropout, within it, is "
            "found",
            f"half of the text {difference('less-text')}; dropout {difference('dropout')}",
            "positive controls that are equivalent to the control",
            f"{of('less-text')['detectable']:.3f}; {of('dropout')['detectable']:.3f}",
        ],
        [
            "Does setting it change the gap after equally many updates?",
            "it falls, because training slows down",
            f"coupled less {difference(less, GAP, TOKENS)}; more {difference(more, GAP, TOKENS)}; "
            f"sham {difference(sham, GAP, TOKENS)}",
            "an interval with 0",
            "; ".join(f"{of(arm, GAP, TOKENS)['detectable']:.3f}" for arm in (less, more, sham)),
        ],
        [
            "Is what coupling costs the price of any penalty?",
            "**not here**: the sham leaves coupling as it is, and costs nothing that was found",
            f"held-out loss, coupled more {difference(more, HELDOUT, TOKENS)}; "
            f"sham {difference(sham, HELDOUT, TOKENS)}; "
            f"coupled more minus sham {difference(more, HELDOUT, TOKENS, sham)}",
            "a difference from the sham that has 0 in its interval",
            f"{of(more, HELDOUT, TOKENS, sham)['detectable']:.3f}",
        ],
    ]
