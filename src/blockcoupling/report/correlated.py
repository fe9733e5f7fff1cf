"""What correlates with the score: sentences, a table side by side, and every number."""

from __future__ import annotations

import pandas as pd

from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.report.similar import among_similar, pooled_and_within
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
from blockcoupling.wording import MISSING, number, p_value, significant, words

CORRECTIONS = {"holm": "Holm", "fdr_bh": "Benjamini and Hochberg"}
_R2 = with_interval("r2")


def section(part: Part) -> Section:
    """Return sentences on coupling, predictors side by side, and every comparison, folded."""
    sentences = [*findings(part.main), *among_similar(part.within), *partial(part.main)]
    return Section(
        "Correlation with the score",
        "" if sentences else "No checkpoint of this study has a score to correlate with.",
        sentences,
        tables=[
            *compared(part.main),
            *pooled_and_within(part.within),
            *predicted(part.prediction),
            *comparisons(part.correlation),
        ],
    )


def findings(main: pd.DataFrame) -> list[str]:
    """Say how coupling correlates with each score."""
    sentences = []
    for row in main[main["predictor"] == "coupling"].to_dict("records"):
        what = f"Coupling and {named(row)}, {row['subset']} (n = {row['n']})"
        if pd.isna(row["r2"]):
            sentences.append(f"{what}: {row['note']}.")
            continue
        text = f"{what}: R² = {_R2(row)}"
        if pd.notna(row["pearson_p"]):
            text += f", p = {p_value(row['pearson_p'])}".replace("= <", "<")
        sentences.append(f"{text}; stronger coupling correlates with the {direction(row)} score.")
    return sentences


def direction(row: dict) -> str:
    """Return whether the score gets better or worse with stronger coupling."""
    return "better" if (row["pearson"] > 0) == row["higher_is_better"] else "worse"


def partial(main: pd.DataFrame) -> list[str]:
    """Say how coupling correlates with each score, controlling for all that is known at once."""
    sentences = []
    for row in main[main["predictor"] == "coupling"].to_dict("records"):
        if pd.isna(row["pearson"]) or pd.isna(row["partial"]):
            continue
        turned = (row["pearson"] > 0) != (row["partial"] > 0)
        end = ", the opposite sign: models that differ in these should not be pooled" * turned
        sentences.append(
            f"Coupling and {named(row)}, {row['subset']}, controlling for "
            f"{words(str(row['partial_given']))}: r changes from {number(row['pearson'])} to "
            f"{number(row['partial'])} (n = {int(row['partial_n'])}){end}."
        )
    return sentences


def compared(main: pd.DataFrame) -> list[Table]:
    """Return the predictors of each score in rows, the choices of checkpoints in columns."""
    tables = []
    for _, own in main.groupby(["score", "metric"]):
        sizes = own.groupby("subset", sort=False)["n"].max()
        cells: dict[str, dict[str, list[str]]] = {}
        for row in own.to_dict("records"):
            by = cells.setdefault(row["predictor"], {})
            by[row["subset"]] = [_R2(row), p_value(row["pearson_p_adjusted"])]
        rows = [
            [LABELS.get(name, name), *(c for s in sizes.index for c in by.get(s, [MISSING] * 2))]
            for name, by in cells.items()
        ]
        columns = ["predictor"]
        columns += [f"{s}, n = {n}: {what}" for s, n in sizes.items() for what in ("R²", "p")]
        first = own.iloc[0]
        caption = (
            f"Predictors of {named(first)}: R² of each alone, with a 95 % interval from "
            f"{first['resamples']} bootstrap resamples of whole models; p adjusted for the number "
            f"of predictors ({CORRECTIONS[first['correction']]})."
        )
        tables.append(Table(caption, columns, rows, ["predictor"]))
    return tables


def comparisons(table: pd.DataFrame) -> list[Table]:
    """Return every number, a table per score."""
    caption = (
        "Slope, R² with its interval, Pearson's r, Spearman's ρ, and partial r, controlling for "
        "parameters, depth, dimension and training tokens where they are known and vary."
    )
    cells = {
        "points": plain("subset"),
        "predictor": predictor,
        "n": plain("n"),
        "slope": shown("slope", significant),
        "R²": _R2,
        "r": shown("pearson", number),
        "p": shown("pearson_p", p_value),
        "adjusted p": shown("pearson_p_adjusted", p_value),
        "ρ": shown("spearman", number),
        "p of ρ": shown("spearman_p", p_value),
        "partial r": shown("partial", number),
        "p of partial r": shown("partial_p", p_value),
        NOTE: plain("note"),
    }
    text = ["points", "predictor", NOTE]
    return per_score(table, cells, caption, words=text, title="all comparisons")


def predicted(table: pd.DataFrame) -> list[Table]:
    """Return how well the score of held-out models is predicted, a table per score."""
    caption = (
        "Each model, family or depth is held out in turn and its score predicted by least squares "
        "from the others. q² = 1 is perfect, 0 no better than the mean; error is the mean absolute "
        "error. Added q²: what coupling adds to hyperparameters. 95 % intervals by resampling what "
        "is held out."
    )
    cells = {
        "points": plain("subset"),
        "held out": plain("left_out"),
        "predictors": plain("predictors"),
        "n (groups)": lambda row: f"{row['n']} ({row['groups']})",
        "q²": with_interval("q2"),
        "error": shown("mae", significant),
        "added q²": lambda row: with_interval("added")({**row, "added": row["added_q2"]}),
        NOTE: plain("note"),
    }
    text = ["points", "held out", "predictors", NOTE]
    return per_score(table, cells, caption, words=text, title="prediction of held-out models")
