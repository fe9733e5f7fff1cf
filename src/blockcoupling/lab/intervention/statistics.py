"""Effects of setting coupling: arms against the control, pair by pair, and slopes on coupling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.config.intervention import Intervention
from blockcoupling.errors import UserError
from blockcoupling.lab.intervention.arms import (
    COUPLING,
    DAMAGE,
    LOSS,
    TOKENS,
    TRAINING,
    at_loss,
    incomparable,
    members,
    outcomes,
    populations,
)
from blockcoupling.lab.intervention.paired import paired_difference, slope_in_pairs
from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.tables import write_tables

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

DIFFERENCE, SLOPE = "difference", "slope"
POSITIVE = "positive control"
LEVEL = 0.05
ALL = ""
SIDES = ("all doses", "coupled more", "coupled less")
"""Doses of a slope, always with the control: all; those that raised the mean coupling; those that
lowered it."""


def write_intervention(
    catalog: Catalog, out: Path, section: Intervention, *, k: int, variant: str, metric: str
) -> dict[str, Path]:
    """Write the members of every arm, and the comparisons of arms.

    Args:
        catalog: as for `arms.members`.
        out: the table of comparisons; `arms.parquet` is written to the same folder.
        section: roles of the populations.
        k: of the coupling.
        variant: of the coupling.
        metric: of the score `training`: the loss at which members are compared.

    Returns:
        The files by kind, `intervention` and `arms`.

    Raises:
        UserError: a population or an outcome is not in the catalog.
    """
    roles = [section.control, *section.doses, *section.shams, *section.positive_controls]
    named = [*roles, *populations(catalog)]
    table = members(catalog, list(dict.fromkeys(named)), k=k, variant=variant)
    known = outcomes(table)
    for key in ("smallest_effect", "outcomes"):
        if missing := [name for name in getattr(section, key) if name not in known]:
            raise UserError(
                f"intervention.{key}: no outcome {missing[0]!r}; outcomes of this study: "
                f"{', '.join(known)}"
            )
    rows = pd.DataFrame(compare(table, section, f"{TRAINING}{metric}"))
    result = judge(adjust_prespecified(rows, section, equal_outcomes(table)), section)
    arms = table.assign(
        k=k,
        variant=variant,
        control=section.control,
        compared_at=np.nan if section.training_loss is None else section.training_loss,
    )
    result = result.assign(k=k, variant=variant)
    return write_tables({"intervention": result, "arms": arms}, out)


def equal_outcomes(table: pd.DataFrame) -> dict[str, str]:
    """Return outcomes with the same values as an earlier one (a score in another unit).

    Args:
        table: as `members` returns it.

    Returns:
        The earlier outcome by the later one.
    """
    found: dict[str, str] = {}
    for earlier, name in combinations(outcomes(table), 2):
        own, other = (table[each].to_numpy(float) for each in (name, earlier))
        same = np.allclose(own, other, rtol=1e-9, atol=0, equal_nan=True)
        if same and name not in found and earlier not in found:
            found[name] = earlier
    return found


def adjust_prespecified(
    rows: pd.DataFrame, section: Intervention, equal: Mapping[str, str]
) -> pd.DataFrame:
    """Adjust p-values over the prespecified outcomes, each once.

    Coupling itself is no outcome but the check that arms differ in it.

    Args:
        rows: as :func:`compare` yields them.
        section: with the prespecified outcomes.
        equal: as :func:`equal_outcomes` returns them.

    Returns:
        The rows with `prespecified`, `p_adjusted` (missing for others), `comparisons` and
        `correction`.
    """
    named = section.outcomes or [*section.smallest_effect]
    chosen = rows["outcome"].isin(named) if named else rows["outcome"].ne(COUPLING)
    chosen &= ~rows["outcome"].isin(equal)
    notes = rows["outcome"].map({each: f"same values as {other}" for each, other in equal.items()})
    rows = rows.assign(
        prespecified=chosen,
        note=[
            "; ".join(filter(None, [note, "" if pd.isna(same) else same]))
            for note, same in zip(rows["note"], notes, strict=True)
        ],
    )
    by = ["analysis", "at", "stratum", "against"]
    tested = adjust(rows.assign(p=rows["p"].where(chosen)), by=by, columns=["p"])
    return tested.assign(p=rows["p"])


def judge(rows: pd.DataFrame, section: Intervention) -> pd.DataFrame:
    """Say what each difference from the control shows about the smallest effect of interest.

    That a dose changes nothing is shown only by a comparison that could have shown a change: one
    in which a positive control differs from the control, and is not equivalent to it.

    Args:
        rows: as :func:`adjust_prespecified` returns them.
        section: with the positive controls.

    Returns:
        The rows with `verdict`: "different", "equivalent", both, "neither shown nor excluded", or
        "equivalent, but so are the positive controls"; empty where nothing was tested.
    """
    tested = rows["p"].notna() & rows["p_equivalent"].notna()
    same = tested & rows["p_equivalent"].lt(LEVEL)
    differ = tested & rows["p_adjusted"].fillna(rows["p"]).lt(LEVEL)
    moved = differ & ~same & rows["population"].isin(section.positive_controls)
    by = [rows[name] for name in ("at", "stratum", "outcome")]
    able = moved.groupby(by).transform("any") | (not section.positive_controls)
    verdict = pd.Series("", rows.index).mask(tested, "neither shown nor excluded")
    verdict = verdict.mask(differ, "different")
    verdict = verdict.mask(same, "equivalent, but so are the positive controls")
    verdict = verdict.mask(same & able, "equivalent").mask(same & differ, "different, equivalent")
    return rows.assign(verdict=verdict)


def compare(table: pd.DataFrame, section: Intervention, loss: str) -> Iterator[dict[str, Any]]:
    """Compare arms with the control and with the shams, and estimate slopes on coupling.

    Args:
        table: as `members` returns it.
        section: roles of the populations.
        loss: column of the training loss; without it comparisons are at equal tokens only.

    Yields:
        analysis (`difference`, `slope`), at (`equal tokens`, `equal training loss`), stratum (of
        the pairs; empty: all), outcome, arm (of a slope: one of :data:`SIDES`), population,
        weight, against, coupling and coupling_against, mean and mean_against (of the outcome; all
        over the pairs), pairs, points, estimate, low, high, p, smallest, p_equivalent, sd,
        detectable, pairs_for_equivalence, note.
    """
    strata = [each for each in dict.fromkeys(table["stratum"]) if each]
    for stratum in [ALL, *(strata if len(strata) > 1 else [])]:
        own = table[table["stratum"].eq(stratum)] if stratum else table
        for at in (TOKENS, LOSS) if loss in table else (TOKENS,):
            column = loss if at == LOSS else None
            for row in (*_differences(own, section, column), *_slopes(own, section, column)):
                yield {"at": at, "stratum": stratum, **row}


def _differences(
    table: pd.DataFrame, section: Intervention, loss: str | None
) -> Iterator[dict[str, Any]]:
    arms = {str(arm): own for arm, own in table.groupby("arm", sort=False)}
    whose = {arm: str(own["population"].iloc[0]) for arm, own in arms.items()}
    references = [arm for arm, name in whose.items() if name in (section.control, *section.shams)]
    for reference in references:
        sham = whose[reference] in section.shams
        for arm, own in arms.items():
            if whose[arm] == whose[reference] or (sham and whose[arm] not in section.doses):
                continue
            both, lost = _side_by_side([own, arms[reference]], loss, section.training_loss)
            for outcome in _known(table, loss):
                smallest = section.smallest_effect.get(outcome)
                mine, theirs = (each[outcome].to_numpy(float) for each in both)
                known = np.isfinite(mine - theirs)
                yield {
                    "analysis": DIFFERENCE,
                    "outcome": outcome,
                    "arm": arm,
                    "population": whose[arm],
                    "weight": float(own["weight"].iloc[0]),
                    "against": reference,
                    "coupling": float(both[0][COUPLING].mean()),
                    "coupling_against": float(both[1][COUPLING].mean()),
                    "mean": float(mine[known].mean()) if known.any() else np.nan,
                    "mean_against": float(theirs[known].mean()) if known.any() else np.nan,
                    "smallest": np.nan if smallest is None else smallest,
                    **paired_difference(mine, theirs, smallest, lost),
                }


def _slopes(
    table: pd.DataFrame, section: Intervention, loss: str | None
) -> Iterator[dict[str, Any]]:
    final = table[table["final"]]
    reached = final.groupby("arm")[COUPLING].mean()
    control = final.loc[final["population"].eq(section.control), COUPLING].mean()
    for side in SIDES:
        chosen = [
            own
            for arm, own in table.groupby("arm", sort=False)
            if own["population"].iloc[0] == section.control
            or (
                own["population"].iloc[0] in section.doses
                and (side == SIDES[0] or (reached[arm] > control) == (side == SIDES[1]))
            )
        ]
        if len(chosen) < 2:
            continue
        together, lost = _side_by_side(chosen, loss, section.training_loss)
        stacked = pd.concat(together)
        for outcome in _known(table, loss):
            if outcome == COUPLING:
                continue
            slope = slope_in_pairs(stacked[COUPLING], stacked[outcome], stacked["pair"])
            yield {
                "analysis": SLOPE,
                "outcome": outcome,
                "arm": side,
                "population": ", ".join(section.doses),
                "weight": np.nan,
                "against": section.control,
                "coupling": float(stacked[COUPLING].max()),
                "coupling_against": float(stacked[COUPLING].min()),
                "smallest": np.nan,
                "p_equivalent": np.nan,
                **slope,
                "note": "; ".join(filter(None, [lost, slope["note"]])),
            }


def _known(table: pd.DataFrame, loss: str | None) -> list[str]:
    """Outcomes to compare; at equal loss neither that loss, nor damage (final checkpoints only)."""
    return [
        name
        for name in outcomes(table)
        if loss is None or not (name.startswith(DAMAGE) or name == loss)
    ]


class _Pairs(NamedTuple):
    arms: list[pd.DataFrame]
    """Outcomes of each arm, a row a pair, the same pairs in each; missing where they were lost."""
    lost: str
    """How many pairs were lost, and why; "" if none was."""


def _side_by_side(arms: Sequence[pd.DataFrame], loss: str | None, at: float | None) -> _Pairs:
    """Outcomes of some arms, pair by pair.

    Args:
        arms: their rows of `members`.
        loss: None means the last checkpoints; else the column of the loss at which the members of
            a pair are compared.
        at: that loss; None: the highest of their final losses.
    """
    shared = sorted(set.intersection(*(set(own["pair"]) for own in arms)))
    if loss is None:
        last = [own[own["final"]].set_index("pair").loc[shared].reset_index() for own in arms]
        return _Pairs(last, "")
    wanted = _known(arms[0], loss)
    found: list[list[dict[str, Any]]] = [[] for _ in arms]
    reasons: Counter[str] = Counter()
    for pair in shared:
        mine = [own[own["pair"].eq(pair)] for own in arms]
        target = at or max(float(each.loc[each["final"], loss].iloc[0]) for each in mine)
        reason = incomparable(mine, loss, target)
        reasons[reason] += 1
        for rows, each in zip(found, mine, strict=True):
            missing = dict.fromkeys(wanted, np.nan)
            rows.append(
                {"pair": pair} | (missing if reason else at_loss(each, loss, target, wanted))
            )
    why = "; ".join(f"{reason} ({count})" for reason, count in reasons.items() if reason)
    lost = f"{len(shared) - reasons['']} of {len(shared)} pairs lost: {why}" if why else ""
    return _Pairs([pd.DataFrame(rows, columns=["pair", *wanted]) for rows in found], lost)
