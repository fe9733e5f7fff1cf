"""What remains of a correlation among similar models: sentences, and every number."""

from __future__ import annotations

from typing import Any

import pandas as pd

from blockcoupling.report.table import (
    NOTE,
    Table,
    named,
    per_score,
    plain,
    predictor,
    shown,
    with_interval,
)
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.statistics.within import ALIKE, VERDICTS
from blockcoupling.wording import p_value

_OPPOSITE, _DIFFER, _SAME, _ = VERDICTS


def among_similar(within: pd.DataFrame) -> list[str]:
    """Say whether the slope over all models also holds among similar ones, where that is known.

    Args:
        within: rows about the headline scores, as `statistics.within.within_groups` returns them.

    """
    sentences = []
    for (_, _, subset), own in within.groupby(["score", "metric", "subset"], sort=False):
        what = f"{named(own.iloc[0])}, {subset}"
        coupling = own[(own["predictor"] == "coupling") & own["within_low"].notna()]
        if len(coupling):
            sentences.append(_of_coupling(what, coupling.to_dict("records")))
        turned = own[(own["verdict"] == _OPPOSITE) & (own["predictor"] != "coupling")]
        if len(turned):
            listed = [
                f"{LABELS.get(str(name), str(name))} (within {', '.join(rows['alike'])})"
                for name, rows in turned.groupby("predictor", sort=False)
            ]
            sentences.append(f"The sign for {what} also changes for {'; '.join(listed)}.")
    return sentences


def _of_coupling(what: str, rows: list[dict[Any, Any]]) -> str:
    most = max(rows, key=lambda each: each["n"])
    parts = [] if pd.isna(most["pooled"]) else [f"over all {most['n']} points {_POOLED(most)}"]
    parts += [f"within {row['alike']} {_WITHIN(row)}" for row in rows]
    text = f"Standardized slope of {what}, on coupling: {'; '.join(parts)}."
    verdicts = {each: [r["alike"] for r in rows if r["verdict"] == each] for each in VERDICTS}
    if turned := verdicts[_OPPOSITE]:
        text += (
            f" Within {_listed(turned)} the sign is the opposite (Simpson's paradox): the slope "
            "over all models comes from their size or kind and does not hold among similar models."
        )
    if other := verdicts[_DIFFER]:
        text += (
            f" Between models of different {_listed(other)} the slope differs from the slope "
            "within: the pooled number mixes the two."
        )
    if same := verdicts[_SAME]:
        text += (
            f" No difference between slopes within and between was found for {_listed(same)}, "
            "which does not prove them equal."
        )
    return text


_POOLED, _WITHIN = with_interval("pooled"), with_interval("within")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def pooled_and_within(within: pd.DataFrame) -> list[Table]:
    """Return every number, a table per score."""
    caption = (
        "Standardized slopes of the score, with 95 % intervals: over all points; within groups of "
        f"similar models ({', '.join(ALIKE)}; a constant for each group); between the means of the "
        "groups. p adjusted for the number of predictors. "
        + " ".join(f"{name[0].upper()}{name[1:]}: {what}." for name, what in VERDICTS.items())
    )
    cells = {
        "predictor": predictor,
        "points": plain("subset"),
        "groups of equal": plain("alike"),
        "n (models, groups)": lambda row: f"{row['n']} ({row['models']}, {row['groups']})",
        "pooled": _POOLED,
        "within": _WITHIN,
        "adjusted p": shown("within_p_adjusted", p_value),
        "between": with_interval("between"),
        "p of difference (adjusted)": lambda row: (
            f"{p_value(row['contrast_p'])} ({p_value(row['contrast_p_adjusted'])})"
        ),
        "verdict": plain("verdict"),
        NOTE: plain("note"),
    }
    text = ["predictor", "points", "groups of equal", "verdict", NOTE]
    return per_score(within, cells, caption, words=text, title="slopes, pooled and within groups")
