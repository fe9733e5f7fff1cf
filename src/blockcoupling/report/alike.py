"""What is left of a correlation among models that are alike: in words, and every number."""

from __future__ import annotations

from typing import Any

import pandas as pd

from blockcoupling.report.table import Table
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.statistics.within import ALIKE, VERDICTS
from blockcoupling.wording import interval, number, p_value, words


def among_alike(within: pd.DataFrame) -> list[str]:
    """Say whether what goes with the score over all models does so among models that are alike.

    Args:
        within: rows about the headline scores, as `statistics.within.within_groups` returns them.

    """
    sentences = []
    for (score, metric, subset), own in within.groupby(["score", "metric", "subset"], sort=False):
        coupling = own[own["predictor"] == "coupling"].to_dict("records")
        what = f"{words(f'{score} {metric}')}, {subset}"
        if coupling:
            sentences.append(_of_coupling(what, coupling))
        turned = own[(own["verdict"] == "opposite") & (own["predictor"] != "coupling")]
        if len(turned):
            named = [
                f"{LABELS.get(str(name), str(name))} (within {', '.join(rows['alike'])})"
                for name, rows in turned.groupby("predictor", sort=False)
            ]
            sentences.append(f"The sign also turns, against {what}, of {'; '.join(named)}.")
    return sentences


def _of_coupling(what: str, rows: list[dict[Any, Any]]) -> str:
    told = [row for row in rows if pd.notna(row["within_low"])]
    untold = [row for row in rows if pd.isna(row["within_low"])]
    parts = [_pooled(rows), *(f"within {row['alike']} {_within(row)}" for row in told)]
    text = f"Standardized slope of {what}, on coupling: {'; '.join(filter(None, parts))}."
    if untold:
        reasons = dict.fromkeys(f"within {row['alike']}, {row['note']}" for row in untold)
        text += f" Whether it holds cannot be told {'; '.join(reasons)}."
    verdicts = {
        verdict: [row["alike"] for row in told if row["verdict"] == verdict] for verdict in VERDICTS
    }
    if turned := verdicts["opposite"]:
        text += (
            f" Within {_listed(turned)} the sign is the opposite one (Simpson's paradox): what is "
            "seen over all models comes from their size or kind, and is not what coupling goes "
            "with among models that are alike."
        )
    if other := verdicts["differ"]:
        text += (
            f" Between models of different {_listed(other)} the slope is another one than within: "
            "the pooled number mixes the two."
        )
    if same := verdicts["not told apart"]:
        text += (
            f" Slopes within and between were not told apart for {_listed(same)}, which does not "
            "prove them equal."
        )
    return text


def _pooled(rows: list[dict[Any, Any]]) -> str:
    row = max(rows, key=lambda each: each["n"])
    if pd.isna(row["pooled"]):
        return ""
    reach = f" {interval(row['pooled_low'], row['pooled_high'])}"
    return f"over all {row['n']} points {number(row['pooled'])}{reach.removesuffix(' –')}"


def _within(row: dict[Any, Any]) -> str:
    return f"{number(row['within'])} {interval(row['within_low'], row['within_high'])}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def pooled_and_within(within: pd.DataFrame) -> list[Table]:
    """Return every number, a table per score."""
    columns = ["predictor", "points", "within", "n", "models", "groups", "pooled", "interval"]
    columns += ["within it", "interval of it", "adjusted p", "between", "p of the difference"]
    columns += ["adjusted p of it", "verdict", "note"]
    caption = (
        "Standardized slopes of the score: over all points, within what is alike "
        f"({', '.join(ALIKE)}; a constant for each group), and between the means of the groups, "
        "with 95 % intervals; p adjusted for the number of predictors. "
        + " ".join(f"{name[0].upper()}{name[1:]}: {what}." for name, what in VERDICTS.items())
    )
    tables = []
    for (score, metric), own in within.groupby(["score", "metric"]):
        rows = [
            [
                LABELS.get(row["predictor"], row["predictor"]),
                row["subset"],
                row["alike"],
                str(row["n"]),
                str(row["models"]),
                str(row["groups"]),
                number(row["pooled"]),
                interval(row["pooled_low"], row["pooled_high"]),
                number(row["within"]),
                interval(row["within_low"], row["within_high"]),
                p_value(row["within_p_adjusted"]),
                number(row["between"]),
                p_value(row["contrast_p"]),
                p_value(row["contrast_p_adjusted"]),
                row["verdict"],
                row["note"],
            ]
            for row in own.to_dict("records")
        ]
        title = words(f"{score} {metric}")
        title = f"{title[0].upper()}{title[1:]}, pooled and within"
        plain = ["predictor", "points", "within", "verdict", "note"]
        tables.append(Table(caption, columns, rows, plain, title))
    return tables
