"""What goes with the score: in words, side by side, and every number."""

from __future__ import annotations

import pandas as pd

from blockcoupling.report.table import Table
from blockcoupling.statistics.predictors import LABELS
from blockcoupling.wording import MISSING, interval, number, p_value, significant, words

CORRECTIONS = {"holm": "Holm", "fdr_bh": "Benjamini and Hochberg"}


def compared(main: pd.DataFrame) -> list[Table]:
    """Set the predictors of one score below each other, the choices of checkpoints side by side."""
    tables = []
    for (score, metric), own in main.groupby(["score", "metric"]):
        subsets = own["subset"].drop_duplicates().tolist()
        cells: dict[str, dict[str, list[str]]] = {}
        for row in own.to_dict("records"):
            r2 = f"{number(row['r2'])} {interval(row['r2_low'], row['r2_high'])}"
            cells.setdefault(row["predictor"], {})[row["subset"]] = [
                r2.removesuffix(f" {MISSING}"),
                p_value(row["pearson_p_adjusted"]),
            ]
        nothing = [MISSING, MISSING]
        rows = [
            [LABELS.get(name, name), *(c for each in subsets for c in by.get(each, nothing))]
            for name, by in cells.items()
        ]
        sizes = own.groupby("subset")["n"].max()
        columns = ["predictor"]
        for each in subsets:
            columns += [f"{each}, n = {sizes[each]}: R²", "adjusted p"]
        first = own.iloc[0]
        caption = (
            f"Predictors of {words(f'{score} {metric}')}: R² alone, with a 95 % interval from "
            f"{first['resamples']} bootstrap resamples of whole models, and p adjusted for the "
            f"number of predictors ({CORRECTIONS[first['correction']]})."
        )
        tables.append(Table(caption, columns, rows, ["predictor"]))
    return tables


def comparisons(table: pd.DataFrame) -> list[Table]:
    """Return every number, a table per score."""
    columns = ["points", "predictor", "n", "slope", "R²", "interval", "r", "p", "adjusted p"]
    columns += ["ρ", "p of ρ", "partial r", "p of partial r", "note"]
    caption = (
        "Slope, R² with its interval, Pearson's r, Spearman's ρ, and r with parameters, depth, "
        "dimension and training tokens held fixed, as far as they are known and vary."
    )
    tables = []
    for (score, metric), own in table.groupby(["score", "metric"]):
        rows = [
            [
                row["subset"],
                LABELS.get(row["predictor"], row["predictor"]),
                str(row["n"]),
                significant(row["slope"]),
                number(row["r2"]),
                interval(row["r2_low"], row["r2_high"]),
                number(row["pearson"]),
                p_value(row["pearson_p"]),
                p_value(row["pearson_p_adjusted"]),
                number(row["spearman"]),
                p_value(row["spearman_p"]),
                number(row["partial"]),
                p_value(row["partial_p"]),
                row["note"],
            ]
            for row in own.to_dict("records")
        ]
        title = f"{words(f'{score} {metric}')}: all {len(own)} comparisons"
        plain = ["points", "predictor", "note"]
        tables.append(Table(caption, columns, rows, plain, title[0].upper() + title[1:]))
    return tables


def predicted(table: pd.DataFrame) -> list[Table]:
    """Say how well the score of models left out is predicted, a table per score."""
    columns = ["points", "left out", "from", "n", "groups", "q²", "interval", "error"]
    columns += ["added q²", "interval of it", "note"]
    caption = (
        "Each model, family or depth left out in turn and its score predicted from the others by "
        "least squares: q² = 1 is perfect, 0 no better than the mean; error is the mean absolute "
        "one. Added: what coupling adds to the q² of hyperparameters. 95 % intervals by redrawing "
        "what is left out."
    )
    tables = []
    for (score, metric), own in table.groupby(["score", "metric"]):
        rows = [
            [
                row["subset"],
                row["left_out"],
                row["predictors"],
                str(row["n"]),
                str(row["groups"]),
                number(row["q2"]),
                interval(row["q2_low"], row["q2_high"]),
                significant(row["mae"]),
                number(row["added_q2"]),
                interval(row["added_low"], row["added_high"]),
                row["note"],
            ]
            for row in own.to_dict("records")
        ]
        title = words(f"{score} {metric}")
        title = f"{title[0].upper()}{title[1:]} of models left out"
        plain = ["points", "left out", "from", "note"]
        tables.append(Table(caption, columns, rows, plain, title))
    return tables


def findings(main: pd.DataFrame) -> list[str]:
    """Say in words how coupling goes with each score, and how much that is worth."""
    sentences = []
    for row in main[main["predictor"] == "coupling"].to_dict("records"):
        score = words(f"{row['score']} {row['metric']}")
        what = f"Coupling against {score}, {row['subset']} (n = {row['n']})"
        if pd.isna(row["r2"]):
            sentences.append(f"{what}: {row['note']}.")
            continue
        stronger = (row["pearson"] > 0) == row["higher_is_better"]
        text = f"{what}: R² = {number(row['r2'])}"
        if pd.notna(row["r2_low"]):
            text += f", 95 % interval {interval(row['r2_low'], row['r2_high'])}"
        if pd.notna(row["pearson_p"]):
            text += f", p = {p_value(row['pearson_p'])}".replace("= <", "<")
        text += f"; stronger coupling goes with the {'better' if stronger else 'worse'} score."
        if row["note"]:
            text += f" ({row['note']}.)"
        sentences.append(text)
    return sentences
