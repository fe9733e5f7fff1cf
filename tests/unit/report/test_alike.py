"""What is said of slopes pooled and within follows from them."""

import numpy as np
import pandas as pd

from blockcoupling.report.alike import among_alike, pooled_and_within
from blockcoupling.statistics.within import COLUMNS, VERDICTS


def row(**given: object) -> dict:
    about = {"predictor": "coupling", "score": "arc", "metric": "acc", "subset": "final"}
    about |= {"alike": "depth", "n": 30, "models": 30, "groups": 5, "note": ""}
    numbers = {"pooled": 0.5, "pooled_low": 0.2, "pooled_high": 0.8}
    numbers |= {"within": 0.4, "within_low": 0.1, "within_high": 0.7}
    return dict.fromkeys(COLUMNS, np.nan) | about | numbers | given


def said(*rows: dict) -> str:
    return " ".join(among_alike(pd.DataFrame(rows)))


def test_pooled_and_within_stand_beside_each_other():
    text = said(row(verdict="not told apart"))
    assert text.startswith(
        "Standardized slope of arc acc, final, on coupling: over all 30 points 0.50 [0.20, 0.80]; "
        "within depth 0.40 [0.10, 0.70]."
    )
    assert "not told apart for depth, which does not prove them equal" in text
    assert "Simpson" not in text


def test_a_sign_that_turns_within_is_named():
    turned = {"within": -0.4, "within_low": -0.7, "within_high": -0.1, "verdict": "opposite"}
    text = said(row(**turned), row(alike="family", verdict="differ"), row(predictor="s1", **turned))
    assert "Within depth the sign is the opposite one (Simpson's paradox)" in text
    assert "Between models of different family the slope is another one than within" in text
    assert "The sign also turns, against arc acc, final, of largest singular value (within" in text


def test_what_cannot_be_told_is_said_with_its_reason():
    none = dict.fromkeys(("within", "within_low", "within_high"), np.nan)
    text = said(
        row(**none, verdict="cannot be told", note="no depth has 3 or more independent models")
    )
    assert text.endswith(
        "Whether it holds cannot be told within depth, no depth has 3 or more independent models."
    )
    unsure = {"pooled_low": np.nan, "pooled_high": np.nan}
    assert "over all 30 points 0.50." in said(row(**none, **unsure, verdict="cannot be told"))


def test_without_scores_nothing_is_said():
    empty = pd.DataFrame(columns=list(COLUMNS))
    assert among_alike(empty) == []
    assert pooled_and_within(empty) == []


def test_every_number_stands_in_a_table_that_explains_its_verdicts():
    (table,) = pooled_and_within(pd.DataFrame([row(verdict="differ"), row(verdict="opposite")]))
    assert len(table.rows) == 2
    assert all(len(cells) == len(table.columns) for cells in table.rows)
    assert all(what in table.caption for what in VERDICTS.values())
