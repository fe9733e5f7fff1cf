"""Whether a relation between models of different size also holds within a size.

Pooled over models, a predictor and a score may be correlated because both depend on size, and
within a size the sign may even be opposite: Simpson's paradox, which Martin & Mahoney (2021, arXiv
2106.00734) found among rankings of models by quality. Here every relation is estimated pooled,
within groups of similar models, and between the groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.regression import FEWEST, is_constant
from blockcoupling.statistics.scores import comparisons

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ALIKE: Mapping[str, tuple[str, ...]] = {
    "depth": ("depth",),
    "width": ("dimension",),
    "size": ("depth", "dimension"),
    "family": ("family",),
}
"""What the models of a group have in common, and the columns of the points that hold it."""

FEWEST_MODELS = 3
"""Independent models that a group needs for a slope within it."""

LEVEL = 0.05
"""Significance level of the tests behind a verdict."""

LINE = "points lie on a line: no error to estimate, no interval"

VERDICTS: Mapping[str, str] = {
    "opposite": "the signs differ, and neither 95 % interval holds 0: Simpson's paradox",
    "differ": "the slopes within and between groups differ (adjusted p below 0.05)",
    "not told apart": "no such difference was found, which does not prove that there is none",
    "cannot be told": "too few groups, models or differences: the note says which",
}
"""Possible conclusions about the slopes pooled and within."""

_SLOPES = ("pooled", "within", "between", "contrast")
_NUMBERS = tuple(f"{name}{end}" for name in _SLOPES for end in ("", "_low", "_high", "_p"))

COLUMNS = (
    *("predictor", "score", "metric", "higher_is_better", "subset", "alike"),
    *("n", "models", "groups", "groups_of_3", "within_r"),
    *_NUMBERS,
    *("within_p_adjusted", "contrast_p_adjusted", "comparisons", "correction", "verdict", "note"),
)
"""Columns of :func:`within_groups`, described in docs/statistics.md."""


class Slope(NamedTuple):
    """A slope, its standard error, and the degrees of freedom of Student's t.

    Without degrees of freedom, or where points lie on a line, the error is NaN, and so are interval
    and p.
    """

    value: float
    error: float
    freedom: float

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval."""
        from scipy import stats

        reach = float(stats.t.ppf(0.975, self.freedom)) * self.error
        return self.value - reach, self.value + reach

    def p(self) -> float:
        """Return the two-sided p of the slope being 0."""
        from scipy import stats

        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    def less(self, other: Slope) -> Slope:
        """Return the difference to an independent slope: Welch's, by Satterthwaite's freedom."""
        a, b = self.error**2, other.error**2
        freedom = (a + b) ** 2 / (a**2 / self.freedom + b**2 / other.freedom)
        return Slope(self.value - other.value, float(np.sqrt(a + b)), freedom)


def within_groups(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
) -> pd.DataFrame:
    """Relate every predictor to every score: pooled, and within groups of similar models.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it.
        scores: columns model, checkpoint, score, metric, value, higher_is_better.
        checkpoints: as in `statistics.subsets.subsets`; of the subsets, those by training.

    Returns:
        One row per predictor × score × metric × subset × :data:`ALIKE`, with :data:`COLUMNS`.
        P-values are adjusted over the predictors of one score, subset and grouping.

    Raises:
        UserError: a checkpoint has two values of one metric.
    """
    rows: list[dict[str, Any]] = []
    for about, part, predictors in comparisons(table, scores, checkpoints):
        if about["subset_kind"] != "checkpoints":
            continue
        for predictor in predictors:
            for alike, columns in ALIKE.items():
                found = pooled_and_within(
                    part[predictor], part["value"], part[[*columns]], part["model"], alike
                )
                rows.append({"predictor": predictor, **about, "alike": alike, **found})
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    result = pd.DataFrame(rows)
    by = ["score", "metric", "subset", "alike"]
    result = adjust(result, by, columns=("contrast_p", "within_p"))
    result["verdict"] = [_verdict(row) for row in result.to_dict("records")]
    return result[list(COLUMNS)]


def pooled_and_within(
    x: ArrayLike, y: ArrayLike, alike: pd.DataFrame, models: ArrayLike, name: str = "group"
) -> dict[str, Any]:
    """Estimate the slope of y on x over all points, within groups, and between their means.

    Within: least squares with a constant for each group (fixed effects), which is the coefficient
    of the deviation from the group's mean in Mundlak's (1978) regression of y on that deviation and
    the mean. Between: Mundlak's coefficient of the mean, which is least squares on the groups'
    means weighted by their points; its error is that of these means, since points of one group
    share an effect of the group. Where several points belong to one model, errors of pooled and
    within are those of a jackknife over models (CV3 of MacKinnon, Nielsen & Webb, 2023), and t has
    as many degrees of freedom as models less groups. docs/statistics.md has their level.

    Args:
        x: predictor, (n,); points that lack x, y or their group are excluded, and counted in note.
        y: score, (n,).
        alike: (n, c) equal rows are one group.
        models: (n,) the independent model of each point.
        name: word for a group in a note.

    Returns:
        n, models, groups, groups_of_3 (groups with 3 models or more); pooled, within, between and
        contrast (between − within) with _low, _high (95 %) and _p, all in standard deviations of
        y per standard deviation of x over all points, so that they can be compared; within_r, the
        correlation of the deviations from the groups' means; note. What cannot be computed is NaN.
    """
    a, b, owners = np.asarray(x, float), np.asarray(y, float), np.asarray(models)
    known = np.isfinite(a) & np.isfinite(b) & alike.notna().all(axis=1).to_numpy()
    notes = [f"{(~known).sum()} of {len(a)} points lack a finite value"] if not known.all() else []
    a, b, owners = a[known], b[known], owners[known]
    group = alike[known].groupby([*alike], sort=True).ngroup().to_numpy()
    members = pd.Series(owners).groupby(group).nunique().to_numpy()
    result: dict[str, Any] = {"n": len(a), "models": len(np.unique(owners))}
    result |= {"groups": len(members), "groups_of_3": int((members >= FEWEST_MODELS).sum())}
    result |= dict.fromkeys(("within_r", *_NUMBERS), np.nan)
    if why := _why_not_at_all(a, b):
        return result | {"note": "; ".join([*notes, why])}

    a, b = ((v - v.mean()) / v.std() for v in (a, b))
    slopes = {"pooled": _slope(a, b, np.zeros_like(group), owners)}
    if np.isnan(slopes["pooled"].error):
        few = result["models"] < FEWEST
        notes.append(
            f"{result['models']} independent models: too few for an interval" if few else LINE
        )
    if why := _why_not_within(a, b, group, members, name):
        notes.append(why)
    else:
        slopes["within"] = _slope(a, b, group, owners)
        rest_a, rest_b = (v - _means(v, group)[group] for v in (a, b))
        size = np.linalg.norm(rest_a) * np.linalg.norm(rest_b)
        result["within_r"] = float(rest_a @ rest_b / size)
        if np.isnan(slopes["within"].error):
            few = slopes["within"].freedom < 1
            notes.append(f"too few models for an interval within a {name}" if few else LINE)
    if why := _why_not_between(a, group, name):
        notes.append(why)
    elif len(members) > 1:
        slopes["between"] = _between(a, b, group)
        if "within" in slopes:
            slopes["contrast"] = slopes["between"].less(slopes["within"])
    for each, slope in slopes.items():
        low, high = slope.interval()
        result |= {each: slope.value, f"{each}_low": low, f"{each}_high": high}
        result[f"{each}_p"] = slope.p()
    return result | {"note": "; ".join(notes)}


def _why_not_at_all(x: NDArray[np.float64], y: NDArray[np.float64]) -> str | None:
    if len(x) < 3:
        return f"n = {len(x)}: nothing to compare"
    for values, what in ((x, "predictor"), (y, "score")):
        if is_constant(values):
            return f"constant {what}: no slope"
    return None


def _why_not_within(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    group: NDArray[np.intp],
    members: NDArray[Any],
    name: str,
) -> str | None:
    if len(members) == 1:
        return f"all are of one {name}"
    if (members < FEWEST_MODELS).all():
        return f"no {name} has {FEWEST_MODELS} or more independent models"
    for values, what in ((x, "predictor"), (y, "score")):
        if _is_nothing(values - _means(values, group)[group], values):
            return f"the {what} does not differ within a {name}"
    return None


def _why_not_between(x: NDArray[np.float64], group: NDArray[np.intp], name: str) -> str | None:
    means = _means(x, group)
    several = "families" if name == "family" else f"{name}s"
    if 1 < len(means) < FEWEST:
        few = f"{len(means)} {several}: too few for a slope between them"
        return f"{few}, at least {FEWEST} are needed"
    if len(means) > 1 and _is_nothing(means[group], x):
        return f"{several} do not differ in the mean of the predictor"
    return None


def _slope(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    group: NDArray[np.intp],
    owners: NDArray[Any],
) -> Slope:
    """Return the slope with a constant for each group."""
    import statsmodels.api as sm

    constants = np.eye(group.max() + 1)[group]
    fit = sm.OLS(y, np.column_stack([x, constants])).fit()
    units, unit = np.unique(owners, return_inverse=True)
    if len(units) < FEWEST:
        return Slope(float(fit.params[0]), np.nan, 0.0)
    if len(units) == len(x):
        return _with_error(fit.params[0], fit.bse[0], fit.df_resid)
    # A model with several points counts as one.
    error = _jackknife(x, y, group, unit)
    return _with_error(fit.params[0], error, len(units) - constants.shape[1])


def _jackknife(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    group: NDArray[np.intp],
    unit: NDArray[np.intp],
) -> float:
    """Return the standard error of :func:`_slope` by leaving out each unit in turn.

    The unit's sums are subtracted from those of its group, so that nothing is refitted.
    """
    x, y = (v - _means(v, group)[group] for v in (x, y))
    shape = (unit.max() + 1, group.max() + 1)
    place = np.ravel_multi_index((unit, group), shape)
    n, sx, sy, sxx, sxy = (
        np.bincount(place, weights=w, minlength=shape[0] * shape[1]).reshape(shape)
        for w in (np.ones(len(x)), x, y, x * x, x * y)
    )
    n, sx, sy, sxx, sxy = (total.sum(axis=0) - total for total in (n, sx, sy, sxx, sxy))
    n = np.maximum(n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # no slope without this unit: NaN
        slopes = (sxy - sx * sy / n).sum(axis=1) / (sxx - sx * sx / n).sum(axis=1)
    return float(np.sqrt((shape[0] - 1) / shape[0] * np.square(slopes - slopes.mean()).sum()))


def _between(x: NDArray[np.float64], y: NDArray[np.float64], group: NDArray[np.intp]) -> Slope:
    """Return the slope of the groups' means, each weighted by its points."""
    import statsmodels.api as sm

    means = _means(x, group)
    design = np.column_stack([means, np.ones(len(means))])
    fit = sm.WLS(_means(y, group), design, weights=np.bincount(group)).fit()
    return _with_error(fit.params[0], fit.bse[0], fit.df_resid)


def _with_error(slope: float, error: float, freedom: float) -> Slope:
    # x and y are standardized: smaller errors are rounding, of points that lie on a line.
    known = freedom >= 1 and error > 1e-9
    return Slope(float(slope), float(error) if known else np.nan, float(freedom))


def _is_nothing(rest: NDArray[np.float64], whole: NDArray[np.float64]) -> bool:
    """Return whether a residual is mere rounding (1e-9 of the spread of the values)."""
    return bool(np.linalg.norm(rest) <= 1e-9 * np.linalg.norm(whole))


def _means(values: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(group, weights=values) / np.bincount(group))


def _verdict(row: dict[Any, Any]) -> str:
    """Return one of :data:`VERDICTS`."""
    sure = row["pooled_p"] < LEVEL and row["within_p"] < LEVEL
    if sure and row["pooled"] * row["within"] < 0:
        return "opposite"
    if np.isnan(row["contrast_p"]):
        return "cannot be told"
    return "differ" if row["contrast_p_adjusted"] < LEVEL else "not told apart"
