"""What is said about a study's numbers follows from them."""

import numpy as np
import pandas as pd

from blockcoupling.report.reading import against_chance, held_fixed, independent_models

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
    said = against_chance(
        ENDS, prompts({("a", "init"): 0.01, ("a", "main"): 0.2, ("b", "main"): -0.1})
    )
    assert "untrained, 0 of 1 (excess 0.01)" in said
    assert "trained, 1 of 2 (excess −0.10 to 0.20)" in said.replace("-0.10", "−0.10")


def test_where_chance_is_not_known_that_is_said():
    table = prompts({("a", "main"): 0.1})
    for without in (table.drop(columns="excess"), table.assign(excess=np.nan)):
        assert "What chance would give is not known" in against_chance(ENDS, without)


def test_models_are_counted_by_their_weights():
    points = pd.DataFrame({"model": ["a", "a4", "b"], "origin": ["a", "a", "b"]})
    (said,) = independent_models(points, pd.DataFrame({"n": [3]}))
    assert said.startswith("3 checkpoints of 2 independent models stand behind")
    assert "a hint only" in said
    assert independent_models(points, pd.DataFrame()) == []


def correlation(pearson: float, partial: float) -> pd.DataFrame:
    row = {"predictor": "coupling", "score": "arc", "metric": "acc", "subset": "final"}
    row |= {"pearson": pearson, "partial": partial, "partial_n": 30, "partial_given": "depth"}
    return pd.DataFrame([row])


def test_a_sign_that_turns_is_said():
    (same,) = held_fixed(correlation(0.8, 0.5))
    assert same.endswith("with depth held fixed, r goes from 0.80 to 0.50 (n = 30).")
    (turned,) = held_fixed(correlation(0.8, -0.5))
    assert "the opposite sign" in turned
    assert held_fixed(correlation(0.8, np.nan)) == []
