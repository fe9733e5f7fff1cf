"""How well the score of unseen models is predicted, with coupling and without.

Each group of points (a model with all its checkpoints and copies, a family, all models of one
depth) is left out in turn, least squares are fitted to the others, and the score of the excluded
group is predicted: from hyperparameters, which are known without measuring a model, from coupling
alone, and from both. Fits, splits and measures of error are those of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from blockcoupling.statistics.bootstrap import redraw, without_each
from blockcoupling.statistics.factors import known_factors
from blockcoupling.statistics.predictors import COVARIATES
from blockcoupling.statistics.regression import FEWEST, is_constant
from blockcoupling.statistics.scores import comparisons

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEFT_OUT: Mapping[str, str] = {"model": "origin", "family": "family", "depth": "depth"}
"""Groups to leave out in turn, and the column of the points that identifies them."""

SETS: Mapping[str, tuple[bool, bool]] = {
    "hyperparameters": (True, False),
    "coupling": (False, True),
    "hyperparameters + coupling": (True, True),
}
"""Sets of predictors: hyperparameters (:data:`COVARIATES`, and factors of a population) or not,
coupling or not."""

COLUMNS = (
    *("score", "metric", "subset", "left_out", "predictors", "given", "n", "models", "groups"),
    *("q2", "q2_low", "q2_high", "mae", "added_q2", "added_low", "added_high"),
    *("resamples", "seed", "note"),
)
"""Columns of :func:`predict`, described in docs/statistics.md."""


def predict(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict every score of excluded groups, on all, the trained and the final checkpoints.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it.
        scores: columns model, checkpoint, score, metric, value, higher_is_better.
        checkpoints: as in `statistics.subsets.subsets`.
        resamples: of the bootstrap.
        seed: of the bootstrap; recorded in every row.

    Returns:
        One row per score × metric × subset × kind of group × set of predictors.
    """
    rows: list[dict[str, Any]] = []
    for about, part, _ in comparisons(table, scores, checkpoints):
        if about["subset_kind"] == "checkpoints":
            for left_out in LEFT_OUT:
                for row in leave_out(part, left_out, resamples=resamples, seed=seed):
                    rows.append({**about, "left_out": left_out, **row})
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(resamples=resamples, seed=seed)


def leave_out(
    points: pd.DataFrame, left_out: str, *, resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """Predict `value` of each group from the other groups, once per set of predictors.

    All sets are compared on the same points: those that have every finite value that any set needs
    (a hyperparameter that no point has, or that is the same for all, is in no set).

    Args:
        points: columns origin, family, depth, value, coupling and :data:`COVARIATES`; further
            `factor.KEY` for members of a population.
        left_out: one of :data:`LEFT_OUT`.
        resamples: of the bootstrap over groups.
        seed: of the bootstrap.

    Returns:
        A row per set: predictors, given (the columns), n, models, groups, q2 = 1 − (squared errors
        of prediction) / (squared deviations from the mean of all), which is 0 for predictions no
        better than that mean and has no lower bound, mae (mean absolute error), 95 % percentile
        intervals over resamples of groups with all fits repeated; added_q2, of the last set, is q2
        less that of the first one, over the same resamples. What cannot be computed is NaN and the
        note says why.
    """
    from sklearn.metrics import mean_absolute_error, r2_score

    given_here = known_factors(points)
    points = points.assign(**given_here)
    varying = [c for c in COVARIATES if points[c].nunique() > 1] + [*given_here]
    column = LEFT_OUT[left_out]
    needed = list(dict.fromkeys([column, "value", "coupling", *varying]))
    numbers = points[[name for name in needed if name != column or column == "depth"]]
    whole = points[column].notna() & np.isfinite(numbers.to_numpy(float)).all(axis=1)
    lost = int((~whole).sum())
    notes = [f"{lost} of {len(points)} points lack a finite value"] if lost else []
    points = points[whole]
    groups = points[column].to_numpy()
    counted = {
        "n": len(points),
        "models": points["origin"].nunique(),
        "groups": len(np.unique(groups.astype(str))),
    }
    missing = ("q2", "q2_low", "q2_high", "mae", "added_q2", "added_low", "added_high")
    rows, draws = [], {}
    for name, (hyperparameters, coupled) in SETS.items():
        given = [*(varying if hyperparameters else []), *(["coupling"] if coupled else [])]
        row: dict[str, Any] = {"predictors": name, "given": ", ".join(given), **counted}
        row |= dict.fromkeys(missing, np.nan)
        why = _why_not(points, given, groups, left_out)
        if why is None:
            y = points["value"].to_numpy(float)
            x = points[given].to_numpy(float)
            predicted = _predictions(x, y, groups)
            row |= {"q2": r2_score(y, predicted), "mae": mean_absolute_error(y, predicted)}
            draws[name] = redrawn_q2(x, y, groups, resamples=resamples, seed=seed)
            row["q2_low"], row["q2_high"] = _percentiles(draws[name])
        rows.append(row | {"note": "; ".join([*notes, *([why] if why else [])])})
    first, both = rows[0], rows[-1]
    if {first["predictors"], both["predictors"]} <= draws.keys():
        both["added_q2"] = both["q2"] - first["q2"]
        gained = draws[both["predictors"]] - draws[first["predictors"]]
        both["added_low"], both["added_high"] = _percentiles(gained)
    return rows


def _why_not(
    points: pd.DataFrame, given: list[str], groups: NDArray[Any], left_out: str
) -> str | None:
    """Say why nothing can be predicted, if so."""
    labels = groups.astype(str)
    number = len(np.unique(labels))
    if not given:
        return "no hyperparameter is known and differs between points"
    if number < FEWEST:
        known = f"{number} {_plural(left_out, number)}"
        return f"{known} to leave out in turn: too few, at least {FEWEST} are needed"
    if is_constant(points["value"]):
        return "constant score: nothing to predict"
    x = points[given].to_numpy(float)
    for group in np.unique(labels):
        kept = labels != group
        models = points["origin"][kept].nunique()
        rank = _rank(x[kept])
        if models < rank + 2:
            return f"without {left_out} {group} there are {models} models to fit {rank} slopes to"
    return None


def _plural(word: str, number: int) -> str:
    if number == 1:
        return word
    return "families" if word == "family" else f"{word}s"


def _rank(x: NDArray[np.float64]) -> int:
    centred = x - x.mean(axis=0)
    size = np.abs(centred).max(axis=0)
    return int(np.linalg.matrix_rank(centred[:, size > 0] / size[size > 0], tol=1e-10 * len(x)))


def _predictions(
    x: NDArray[np.float64], y: NDArray[np.float64], groups: NDArray[Any]
) -> NDArray[np.float64]:
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Standardized, a property that is the same for all that are fitted gets no slope.
    fit = make_pipeline(StandardScaler(), LinearRegression())
    labels = groups.astype(str)
    return np.asarray(cross_val_predict(fit, x, y, groups=labels, cv=LeaveOneGroupOut()))


def redrawn_q2(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    groups: NDArray[Any],
    *,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return q2 in resamples of groups, with all fits repeated in each.

    A group drawn several times is left out with all its copies. Least squares need the second
    moments of each group only, so that no resample touches the points.

    Args:
        x: (n, c) predictors.
        y: (n,) scores.
        groups: (n,) the group of each point.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        (resamples,); NaN where all scores of a draw are equal.
    """
    members = without_each(groups.astype(str)) == 0
    x = (x - x.mean(axis=0)) / np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1)
    y = (y - y.mean()) / y.std()
    columns = np.column_stack([np.ones(len(y)), x, y])
    products = np.einsum("na,nb->nab", columns, columns).reshape(len(y), -1)
    moments = (members @ products).reshape(len(members), columns.shape[1], columns.shape[1])
    drawn = redraw(np.arange(len(members)), resamples=resamples, seed=seed)
    total = np.einsum("rg,gab->rab", drawn, moments)
    # Without spread in some draw a predictor gets no slope: a ridge far below rounding of the rest.
    ridge = 1e-10 * len(y) * np.eye(x.shape[1] + 1)
    squared = np.zeros(resamples)
    for group, own in enumerate(moments):
        rest = total - drawn[:, group, None, None] * own
        slopes = np.linalg.solve(rest[:, :-1, :-1] + ridge, rest[:, :-1, -1:])[..., 0]
        errors = own[-1, -1] - 2 * slopes @ own[:-1, -1]
        errors += np.einsum("ra,ab,rb->r", slopes, own[:-1, :-1], slopes)
        squared += drawn[:, group] * errors
    spread = total[:, -1, -1] - total[:, 0, -1] ** 2 / total[:, 0, 0]
    defined = spread > 1e-12 * total[:, 0, 0]
    return np.where(defined, 1 - squared / np.where(defined, spread, 1), np.nan)


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
