"""The answer that the report opens with: what was found, how sure that is, what to do next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from blockcoupling.figures.data import at_last
from blockcoupling.report.correlated import direction
from blockcoupling.report.part import Part
from blockcoupling.report.table import capitalized, named, predictor, with_interval
from blockcoupling.statistics.points import CHECKPOINT, mean_over_prompts
from blockcoupling.wording import number, p_value, words

FEW = 10
"""With fewer independent models, p-values and intervals are hints at best."""

MOST_LINES = 8

_SURE = 0.05


class Line(NamedTuple):
    """One line of the answer: the question, and what the numbers say."""

    question: str
    text: str


def answer(parts: Sequence[Part], headlines: Sequence[str] = ()) -> list[Line]:
    """Return the lines of the answer, at most :data:`MOST_LINES`.

    Args:
        parts: the models of each modality.
        headlines: what further sections have to say, a sentence each.

    """
    lines = [Line("Measured", _measured(parts)), Line("Above chance?", _above_chance(parts))]
    lines += [Line("Correlates with?", text) for text in _of_each(parts, _correlates)]
    lines += [Line("Also found", sentence) for sentence in headlines]
    last = [Line("How sure?", how_sure(parts)), Line("Next", what_next(parts))]
    return [*lines[: MOST_LINES - len(last)], *last]


def findings(lines: Sequence[Line]) -> str:
    """Return the three most important lines of an answer as plain text."""
    found = [line for line in lines if line.question.startswith(("Above", "Correlates", "Also"))]
    sure = [line for line in lines if line.question == "How sure?"]
    return "".join(f"{question}: {text}\n" for question, text in [*found, *sure][:3]).replace(
        "?:", ":"
    )


def _measured(parts: Sequence[Part]) -> str:
    counts = [
        f"{len(part.points)} checkpoints of {part.points['model'].nunique()} {part.name}, "
        f"{_range(part.points['prompts'])} {'images' if part.modality == 'image' else 'prompts'} "
        "each"
        for part in parts
    ]
    which = f"mis-coupling variant {words(parts[0].variant)}, K = {parts[0].k}"
    return f"{'; '.join(counts)}; {which}."


def _above_chance(parts: Sequence[Part]) -> str:
    texts = _of_each(parts, lambda part: above_chance(part.ends, _at_ends(part, "coupling")))
    known = any("excess" in text for text in texts)
    scale = ["Excess: 0 is chance, 1 perfect coupling."] if known else []
    near = pd.concat([_at_ends(part, "locality").merge(_finals(part)) for part in parts])
    return " ".join([*texts, *scale, where(near)]).strip()


def _correlates(part: Part) -> str:
    return correlates(part.main)


def _of_each(parts: Sequence[Part], say: Callable[[Part], str]) -> list[str]:
    """Say something of the models of each modality, with their name where there are several."""
    if len(parts) == 1:
        return [say(parts[0])]
    return [f"{capitalized(part.name)}: {say(part)}" for part in parts]


def _finals(part: Part) -> pd.DataFrame:
    return part.ends.loc[part.ends["final"], CHECKPOINT]


def _at_ends(part: Part, kind: str) -> pd.DataFrame:
    """Read a table for untrained and final checkpoints, at the K and variant of the statistics."""
    return at_last(
        part.catalog,
        kind,
        list(part.ends[CHECKPOINT].itertuples(index=False, name=None)),
        filters=[("k", "==", part.k), ("variant", "==", part.variant)],
    )


def above_chance(ends: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say in how many models blocks are coupled above chance, by two standard errors over prompts.

    Args:
        ends: model, checkpoint, untrained and final of the checkpoints to report.
        table: one row per prompt of those: model, checkpoint, dataset, prompt and, where known,
            excess, 1 − m/m_chance.

    """
    if "excess" not in table or table["excess"].isna().all():
        return "Unknown: the stores do not say how wide the models are. Compare untrained ones."
    means = mean_over_prompts(table, CHECKPOINT, ["excess"]).merge(ends, on=CHECKPOINT)
    parts = []
    for column, state in (("final", "trained"), ("untrained", "untrained")):
        own = means[means[column].astype(bool)]
        if own.empty:
            continue
        above = int((own["excess"] > 2 * own["excess_se"].fillna(0)).sum())
        low, high = number(own["excess"].min()), number(own["excess"].max())
        reach = low if low == high else f"{low} to {high}"
        parts.append(f"{above} of {len(own)} {state} models (excess {reach})")
    return f"{', '.join(parts)}."


def where(locality: pd.DataFrame) -> str:
    """Say at which distance between blocks coupling of final checkpoints is strongest.

    Args:
        locality: model, distance, miscoupling.

    """
    means = locality.groupby(["model", "distance"], as_index=False)[["miscoupling"]].mean()
    of_model = means.sort_values("distance").groupby("model")["miscoupling"]
    nearest, farthest = of_model.first().mean(), of_model.last().mean()
    if not means["distance"].max() > 1:
        return ""
    closer = "neighbouring" if nearest < farthest else "distant"
    return (
        f"Trained, strongest between {closer} blocks (mis-coupling {number(nearest)} of "
        f"neighbours, {number(farthest)} of the most distant)."
    )


def correlates(main: pd.DataFrame) -> str:
    """Say how coupling correlates with the headline score, next to the best predictor.

    The choice of checkpoints is the narrowest that has an interval: final ones, else trained ones,
    else all.
    """
    if main.empty:
        return "No checkpoint of this study has a score."
    first = main.iloc[0]
    own = main[(main["score"] == first["score"]) & (main["metric"] == first["metric"])]
    coupling = own[own["predictor"] == "coupling"]
    known = coupling[coupling["r2_low"].notna()]
    if known.empty:
        return f"Unknown for {named(first)}: too few checkpoints have a score."
    row = known.iloc[-1].to_dict()
    sure = row["pearson_p_adjusted"] < _SURE
    found = f"stronger coupling, {direction(row)}" if sure else "no clear correlation with"
    text = (
        f"{found} {named(row)} ({row['subset']}, n = {row['n']}: R² = {with_interval('r2')(row)}, "
        f"adjusted p = {p_value(row['pearson_p_adjusted'])})."
    ).replace("= <", "<")
    ranked = own[own["subset"] == row["subset"]].dropna(subset="r2")
    ranked = ranked.sort_values("r2", ascending=False).reset_index(drop=True)
    place = int(ranked.index[ranked["predictor"] == "coupling"][0]) + 1
    best = ranked.iloc[0].to_dict()
    text = capitalized(text)
    if place == 1:
        return f"{text} Coupling is the best of {len(ranked)} predictors."
    return (
        f"{text} Coupling ranks {place} of {len(ranked)} predictors; the best is "
        f"{predictor(best)}, R² = {number(best['r2'])}."
    )


def how_sure(parts: Sequence[Part]) -> str:
    """Say in one sentence what the number of independent models does not allow."""
    counts = [(part, independent(part.points)) for part in parts if len(part.main)]
    if not counts:
        return "Nothing was correlated."
    models = " and ".join(f"{n} independent {part.name}" for part, n in counts)
    few = [part for part, n in counts if n < FEW]
    if not few:
        return f"{models}; intervals resample whole models."
    lacking = [what for what in _LACKING if any(_LACKING[what](part) for part in few)]
    so = f" do not allow {_or(lacking)}:" if lacking else " are few:"
    return f"{models}{so} read p-values and intervals as hints."


_LACKING = {
    "a test on final checkpoints": lambda part: (
        part.main.loc[part.main["subset"] == "final", "pearson_p"].isna().all()
    ),
    "a comparison among similar models": lambda part: (
        part.within.loc[part.within["predictor"] == "coupling", "within_low"].isna().all()
    ),
    "an interval over models": lambda part: part.main["r2_low"].isna().all(),
}


def independent(points: pd.DataFrame) -> int:
    """Return the number of models with weights of their own."""
    return int(points.get("origin", points["model"]).nunique())


def _or(listed: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))


def what_next(parts: Sequence[Part]) -> str:
    """Say what would make the answer surer."""
    if any(part.main.empty for part in parts):
        return "Give the checkpoints a score (section scores) to correlate coupling with."
    few = [part.name for part in parts if independent(part.points) < FEW]
    if few:
        return (
            f"Add {' and '.join(few)} until at least {FEW} are independent (section models of the "
            "configuration), several of each depth or width."
        )
    return "Test the correlation on models that are not part of this study."


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
