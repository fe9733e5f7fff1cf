"""Sentences on slopes pooled and within groups follow from the numbers."""

import numpy as np
import pandas as pd

from blockcoupling.report.similar import among_similar, pooled_and_within
from blockcoupling.statistics.within import COLUMNS, VERDICTS


def row(**given: object) -> dict:
    about = {"predictor": "coupling", "score": "arc", "metric": "acc", "subset": "final"}
    about |= {"alike": "depth", "n": 30, "models": 30, "groups": 5, "note": ""}
    numbers = {"pooled": 0.5, "pooled_low": 0.2, "pooled_high": 0.8}
    numbers |= {"within": 0.4, "within_low": 0.1, "within_high": 0.7}
    return dict.fromkeys(COLUMNS, np.nan) | about | numbers | given


def said(*rows: dict) -> str:
    return " ".join(among_similar(pd.DataFrame(rows)))


def test_pooled_and_within_are_in_one_sentence():
    text = said(row(verdict="not told apart"))
    assert text.startswith(
        "Standardized slope of arc acc, final, on coupling: over all 30 points 0.50 [0.20, 0.80]; "
        "within depth 0.40 [0.10, 0.70]."
    )
    assert "within and between was found for depth, which does not prove them equal" in text
    assert "Simpson" not in text


def test_a_sign_that_turns_within_is_named():
    turned = {"within": -0.4, "within_low": -0.7, "within_high": -0.1, "verdict": "opposite"}
    text = said(row(**turned), row(alike="family", verdict="differ"), row(predictor="s1", **turned))
    assert "Within depth the sign is the opposite (Simpson's paradox)" in text
    assert "Between models of different family the slope differs from the slope within" in text
    assert "The sign for arc acc, final also changes for largest singular value (within" in text


def test_slopes_that_are_unknown_are_in_the_table_only():
    none = dict.fromkeys(("within", "within_low", "within_high"), np.nan)
    why = "no depth has 3 or more independent models"
    unknown = row(**none, verdict="cannot be told", note=why)
    assert said(unknown) == ""
    (table,) = pooled_and_within(pd.DataFrame([unknown, unknown | {"predictor": "s1"}]))
    assert [cells[-1] for cells in table.rows] == ["1", "1"]
    assert table.notes == [why]
    unsure = {"pooled_low": np.nan, "pooled_high": np.nan}
    assert "over all 30 points 0.50;" in said(row(**unsure, verdict="differ"))


def test_without_scores_nothing_is_said():
    empty = pd.DataFrame(columns=list(COLUMNS))
    assert among_similar(empty) == []
    assert pooled_and_within(empty) == []


def test_every_number_is_in_a_table_that_explains_its_verdicts():
    (table,) = pooled_and_within(pd.DataFrame([row(verdict="differ"), row(verdict="opposite")]))
    assert len(table.rows) == 2
    assert all(len(cells) == len(table.columns) for cells in table.rows)
    assert all(what in table.caption for what in VERDICTS.values())
