"""The answer that the report opens with follows from the numbers."""

import numpy as np
import pandas as pd
import pytest

from blockcoupling.catalog import Catalog
from blockcoupling.report.answer import (
    MOST_LINES,
    Line,
    above_chance,
    answer,
    correlates,
    findings,
    how_sure,
    what_next,
    where,
)
from blockcoupling.report.correlated import partial
from blockcoupling.report.part import Part, part_of

ENDS = pd.DataFrame(
    {
        "model": ["a", "a", "b"],
        "checkpoint": ["init", "main", "main"],
        "untrained": [True, False, False],
        "final": [False, True, True],
    }
)


def prompts(excess: dict[tuple[str, str], float]) -> pd.DataFrame:
    spread = (-0.01, 0.0, 0.01)
    return pd.DataFrame(
        [
            {"model": m, "checkpoint": c, "dataset": "d", "prompt": str(n), "excess": e + more}
            for (m, c), e in excess.items()
            for n, more in enumerate(spread)
        ]
    )


def test_models_above_chance_are_counted_beyond_two_standard_errors():
    # One standard error over the three prompts is 0.01/√3 = 0.0058.
    said = above_chance(
        ENDS, prompts({("a", "init"): 0.01, ("a", "main"): 0.2, ("b", "main"): -0.1})
    )
    assert said == (
        "1 of 2 trained models (excess −0.10 to 0.20), 0 of 1 untrained models (excess 0.01)."
    )


def test_unknown_chance_is_reported():
    table = prompts({("a", "main"): 0.1})
    for without in (table.drop(columns="excess"), table.assign(excess=np.nan)):
        assert "Unknown" in above_chance(ENDS, without)


def part(points: pd.DataFrame, **tables: pd.DataFrame) -> Part:
    empty = dict.fromkeys(
        ("ends", "scores", "main", "correlation", "within", "prediction"), pd.DataFrame()
    )
    return Part(None, "text", points, **{**empty, **tables}, k=10, variant="frobenius")


def relation(predictor: str, subset: str, r2: float, p: float, low: float = 0.1) -> dict:
    about = {"score": "arc", "metric": "acc", "subset": subset, "predictor": predictor, "n": 15}
    return about | {
        **{"r2": r2, "r2_low": low, "r2_high": 0.9, "pearson": -(r2**0.5), "pearson_p": p},
        **{"pearson_p_adjusted": p, "higher_is_better": False},
    }


WITHIN = pd.DataFrame({"predictor": ["coupling"], "within_low": [np.nan]})


@pytest.mark.parametrize(("models", "few"), [(2, True), (10, False)])
def test_one_sentence_says_what_n_does_not_allow(models: int, few: bool) -> None:
    # A copy of a model has its weights, and does not count.
    names = [f"m{n}" for n in range(models)]
    points = pd.DataFrame({"model": [*names, "copy"], "origin": [*names, "m0"]})
    main = pd.DataFrame([relation("coupling", "final", 0.5, np.nan, low=np.nan)])
    said = how_sure([part(points, main=main, within=WITHIN)])
    assert said.startswith(f"{models} independent language models")
    assert ("read p-values and intervals as hints" in said) is few
    if few:
        assert (
            "do not allow a test on final checkpoints, a comparison among similar models or an "
            "interval over models:" in said
        )
    assert ("until at least 10" in what_next([part(points, main=main)])) is few
    assert "a score" in what_next([part(points)])


def test_the_narrowest_choice_of_checkpoints_with_an_interval_is_reported() -> None:
    main = pd.DataFrame(
        [
            relation("coupling", "all checkpoints", 0.3, 0.5),
            relation("coupling", "trained", 0.6, 1e-4),
            relation("s1", "trained", 0.7, 1e-4),
            relation("depth", "trained", np.nan, np.nan),
            relation("coupling", "final", 0.8, np.nan, low=np.nan),
        ]
    )
    assert correlates(main) == (
        "Stronger coupling, better arc acc (trained, n = 15: R² = 0.60 [0.10, 0.90], adjusted p = "
        "1.0·10⁻⁴). Coupling ranks 2 of 2 predictors; the best is largest singular value, R² = "
        "0.70."
    )
    alone = main[main["predictor"] == "coupling"].head(1)
    assert correlates(alone) == (
        "No clear correlation with arc acc (all checkpoints, n = 15: R² = 0.30 [0.10, 0.90], "
        "adjusted p = 0.5). Coupling is the best of 1 predictors."
    )
    assert correlates(main.tail(1)) == "Unknown for arc acc: too few checkpoints have a score."


def test_coupling_is_located_by_the_distance_of_blocks() -> None:
    rows = [("a", 1, 0.6), ("a", 2, 0.8), ("b", 1, 0.8), ("b", 2, 0.85), ("b", 3, 1.0)]
    table = pd.DataFrame(rows, columns=["model", "distance", "miscoupling"])
    assert where(table) == (
        "Trained, strongest between neighbouring blocks (mis-coupling 0.70 of neighbours, 0.90 of "
        "the most distant)."
    )
    assert "distant blocks" in where(table.assign(miscoupling=-table["miscoupling"]))
    assert where(table[table["distance"] == 1]) == ""


def test_the_answer_is_short_and_its_best_lines_are_the_findings(analysed: Catalog) -> None:
    lines = answer([part_of(analysed, "text")], ["Ablation says so."] * 9)
    assert len(lines) == MOST_LINES
    assert [lines[n].question for n in (0, 1, 2, -2, -1)] == [
        *("Measured", "Above chance?", "Correlates with?", "How sure?", "Next"),
    ]
    assert lines[0].text.startswith("18 checkpoints of 3 language models, 12 prompts each")
    text = findings(lines).splitlines()
    assert [line.split(":")[0] for line in text] == [
        "Above chance",
        "Correlates with",
        "Also found",
    ]
    assert findings([Line("How sure?", "Not.")]) == "How sure: Not.\n"


def correlation(pearson: float, partial: float) -> pd.DataFrame:
    row = {"predictor": "coupling", "score": "arc", "metric": "acc", "subset": "final"}
    row |= {"pearson": pearson, "partial": partial, "partial_n": 30, "partial_given": "depth"}
    return pd.DataFrame([row])


def test_a_sign_that_changes_is_reported():
    (same,) = partial(correlation(0.8, 0.5))
    assert same.endswith("controlling for depth: r changes from 0.80 to 0.50 (n = 30).")
    (turned,) = partial(correlation(0.8, -0.5))
    assert "the opposite sign" in turned
    assert partial(correlation(0.8, np.nan)) == []
