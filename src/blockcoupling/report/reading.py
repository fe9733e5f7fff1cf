"""How to read a study's numbers: what they are worth, said from the numbers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from blockcoupling.figures.data import at_last
from blockcoupling.report.alike import among_alike
from blockcoupling.statistics.points import CHECKPOINT, mean_over_prompts
from blockcoupling.wording import number, words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_FEW = 10
"""Independent models, below which p-values and intervals are a hint at best."""


def how_to_read(
    catalog: Catalog,
    points: pd.DataFrame,
    main: pd.DataFrame,
    within: pd.DataFrame,
    k: int,
    variant: str,
) -> list[str]:
    """Return sentences: against chance, how many models, among those alike, others held fixed.

    Args:
        catalog: has the kinds coupling and trajectory.
        points: one row per checkpoint, as `statistics.points.points` returns it.
        main: rows of the correlation table that are about choices of checkpoints.
        within: rows of the table of slopes within groups, of the same scores.
        k: how many singular vectors.
        variant: which mis-coupling.

    """
    ends = points[points["untrained"] | points["final"]]
    table = at_last(
        catalog,
        "coupling",
        list(ends[CHECKPOINT].itertuples(index=False, name=None)),
        filters=[("k", "==", k), ("variant", "==", variant)],
    )
    sentences = [against_chance(ends, table), *independent_models(points, main)]
    return [*sentences, *among_alike(within), *held_fixed(main)]


def against_chance(ends: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say in how many models blocks line up more than random singular vectors would.

    Args:
        ends: model, checkpoint, untrained and final of the checkpoints that are told.
        table: one row per prompt of those: model, checkpoint, dataset, prompt and, where known,
            excess, 1 − m/m_chance.

    """
    if "excess" not in table or table["excess"].isna().all():
        return (
            "What chance would give is not known for these measurements (their stores do not say "
            "how wide the models are): hold trained models against untrained ones."
        )
    means = mean_over_prompts(table, CHECKPOINT, ["excess"]).merge(ends, on=CHECKPOINT)
    parts = []
    for column, state in (("untrained", "untrained"), ("final", "trained")):
        own = means[means[column].astype(bool)]
        if own.empty:
            continue
        above = own["excess"] > 2 * own["excess_se"].fillna(0)
        low, high = own["excess"].min(), own["excess"].max()
        reach = number(low) if len(own) == 1 else f"{number(low)} to {number(high)}"
        parts.append(f"{state}, {above.sum()} of {len(own)} (excess {reach})")
    return (
        "Models whose blocks line up more than random singular vectors would, by more than two "
        f"standard errors over prompts: {'; '.join(parts)}. The excess is 1 − m/m by chance: 0 is "
        "chance, 1 full coupling; below 0, blocks line up less than chance would have it."
    )


def independent_models(points: pd.DataFrame, main: pd.DataFrame) -> list[str]:
    """Say how many models of different weights stand behind the points."""
    if main.empty:
        return []
    models = int(points.get("origin", points["model"]).nunique())
    text = f"{len(points)} checkpoints of {models} independent models stand behind the correlations"
    if len(points) > models:
        text += "; checkpoints of one model are not independent of each other"
    if models < _FEW:
        text += f". With fewer than {_FEW} models, take every p-value and interval for a hint only"
    return [f"{text}."]


def held_fixed(main: pd.DataFrame) -> list[str]:
    """Say whether coupling goes with the score when all that is known is held fixed at once."""
    sentences = []
    for row in main[main["predictor"] == "coupling"].to_dict("records"):
        if pd.isna(row["pearson"]) or pd.isna(row["partial"]):
            continue
        turned = (row["pearson"] > 0) != (row["partial"] > 0)
        score = words(f"{row['score']} {row['metric']}")
        text = (
            f"Coupling against {score}, {row['subset']}: with {words(str(row['partial_given']))} "
            f"held fixed, r goes from {number(row['pearson'])} to {number(row['partial'])} "
            f"(n = {int(row['partial_n'])})"
        )
        sentences.append(
            f"{text}, the opposite sign: models that differ in these are not to be pooled."
            if turned
            else f"{text}."
        )
    return sentences
