"""How well a measurement goes with a score: slopes, correlations, intervals, and their caveats.

Every statistic is that of SciPy or statsmodels; what is added here is which points are compared
(:func:`subsets`), what is held fixed (:func:`partial_correlation`), how sure one can be when
several points are checkpoints of one model (:func:`bootstrap_r2`), and a `note` that says in words
when a number means little or cannot be given at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.statistics.points import (
    CHECKPOINT,
    FACTS,
    MEASURES,
    PROMPT,
    at_last_token,
    checkpoint_facts,
    points,
    prompt_values,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from blockcoupling.catalog import Catalog

COVARIATES = ("log_parameters", "depth", "dimension", "log_tokens")
"""What a partial correlation holds fixed."""

SIZE_CLASSES: Mapping[str, tuple[float, float]] = {
    "under 1B": (0, 1e9),
    "1B to 5B": (1e9, 5e9),
    "7B": (5e9, 9e9),
    "9B to 20B": (9e9, 20e9),
    "over 20B": (20e9, np.inf),
}
"""Numbers of parameters, lower bound included."""

FEWEST = 4
"""With fewer points no p-value and no interval is given."""

Correction = Literal["holm", "fdr_bh"]

COLUMNS = (
    *("predictor", "score", "metric", "higher_is_better", "subset", "subset_kind", "n", "models"),
    *("slope", "intercept", "r2", "r2_low", "r2_high"),
    *("pearson", "pearson_p", "pearson_p_adjusted", "spearman", "spearman_p"),
    *("spearman_p_adjusted", "comparisons", "correction"),
    *("partial", "partial_p", "partial_n", "partial_given", "resamples", "seed", "note"),
)
"""Of the table that :func:`correlate` returns; docs/statistics.md says what they hold."""

logger = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------ statistics


class Partial(NamedTuple):
    """A correlation with other variables held fixed."""

    r: float
    p: float
    freedom: int


def is_constant(values: ArrayLike) -> bool:
    """Tell whether values differ by no more than rounding (1e-12 of their size)."""
    array = np.asarray(values, dtype=float)
    return bool(np.ptp(array) <= 1e-12 * np.abs(array).max())


def partial_correlation(x: ArrayLike, y: ArrayLike, covariates: ArrayLike) -> Partial:
    """Correlate what is left of x and of y after a linear fit on covariates.

    Args:
        x: (n,).
        y: (n,).
        covariates: (n, c); constant or redundant columns change nothing.

    Returns:
        r, its two-sided p from Student's t and the degrees of freedom n − 2 − rank. This p is the
        one of x in the least-squares fit of y on x and the covariates. r and p are missing when
        there are fewer than two degrees of freedom, or when the covariates determine x or y.

    """
    from scipy import stats

    a, b = np.asarray(x, float), np.asarray(y, float)
    z = np.asarray(covariates, float).reshape(len(a), -1)
    z = z - z.mean(axis=0)
    scale = np.abs(z).max(axis=0)
    z = z[:, scale > 0] / scale[scale > 0]
    left, s, _ = np.linalg.svd(z, full_matrices=False)
    basis = left[:, s > 1e-10 * s.max(initial=0)]
    freedom = len(a) - 2 - basis.shape[1]
    rest = []
    for values in (a - a.mean(), b - b.mean()):
        residual = values - basis @ (basis.T @ values)
        if np.linalg.norm(residual) <= 1e-10 * np.linalg.norm(values):
            return Partial(np.nan, np.nan, freedom)
        rest.append(residual)
    if freedom < 2:
        return Partial(np.nan, np.nan, freedom)
    r = float(np.clip(rest[0] @ rest[1] / np.linalg.norm(rest[0]) / np.linalg.norm(rest[1]), -1, 1))
    with np.errstate(divide="ignore"):
        t = r * np.sqrt(np.divide(freedom, 1 - r**2))
    return Partial(r, float(2 * stats.t.sf(abs(t), freedom)), freedom)


def bootstrap_r2(
    x: ArrayLike, y: ArrayLike, models: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Draw models with replacement and return R² of each draw, all points of a model together.

    Checkpoints of one model are no independent points: drawing them singly would make the interval
    too narrow. With one point per model this is the ordinary bootstrap.

    Args:
        x: (n,).
        y: (n,).
        models: (n,) which model each point belongs to.
        resamples: how many draws.
        seed: of the draws; equal seeds and models give equal draws for every x and y.

    Returns:
        (resamples,); NaN where x or y is constant in a draw.

    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    _, owner = np.unique(np.asarray(models), return_inverse=True)
    number = owner.max() + 1
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)
    weight = draws[:, owner].astype(float)
    weight /= weight.sum(axis=1, keepdims=True)
    # Standardized first: the moments below then lose nothing to cancellation.
    a, b = ((v - v.mean()) / (v.std() or 1.0) for v in (a, b))
    mean_a, mean_b = weight @ a, weight @ b
    var_a, var_b = weight @ a**2 - mean_a**2, weight @ b**2 - mean_b**2
    covariance = weight @ (a * b) - mean_a * mean_b
    defined = (var_a > 1e-12) & (var_b > 1e-12)
    r2 = np.full(resamples, np.nan)
    r2[defined] = (covariance**2)[defined] / (var_a * var_b)[defined]
    return r2.clip(0, 1)


def relate(
    x: ArrayLike,
    y: ArrayLike,
    models: ArrayLike | None = None,
    *,
    covariates: pd.DataFrame | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Hold one predictor against one score.

    Args:
        x: predictor, (n,); points that lack x or y are left out, and the note counts them.
        y: score, (n,).
        models: (n,) which model each point belongs to (default: each its own).
        covariates: (n, c) what the partial correlation holds fixed; points that lack one of them
            are left out of it, columns that nobody knows are ignored.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        n, models, slope, intercept, r2, r2_low, r2_high (95 % percentile interval of
        :func:`bootstrap_r2`), pearson, pearson_p, spearman, spearman_p, partial, partial_p,
        partial_n, partial_given, note. What cannot be computed is NaN and the note says why.

    """
    from scipy import stats

    a, b = np.asarray(x, float), np.asarray(y, float)
    owners = np.arange(len(a)) if models is None else np.asarray(models)
    known = np.isfinite(a) & np.isfinite(b)
    notes = [f"{(~known).sum()} of {len(a)} points lack a value"] if not known.all() else []
    a, b, owners = a[known], b[known], owners[known]
    n, number = len(a), len(np.unique(owners))
    names = ["slope", "intercept", "r2", "r2_low", "r2_high", "pearson", "pearson_p"]
    names += ["spearman", "spearman_p", "partial", "partial_p"]
    result: dict[str, Any] = {"n": n, "models": number, **dict.fromkeys(names, np.nan)}
    result |= {"partial_n": 0, "partial_given": ""}

    if n < 2:
        notes.append(f"n = {n}: nothing to fit")
    elif is_constant(a):
        notes.append("constant predictor: no correlation, no p-value")
    elif is_constant(b):
        notes.append("constant score: no correlation, no p-value")
    else:
        line, rank = stats.linregress(a, b), stats.spearmanr(a, b)
        result |= {"slope": line.slope, "intercept": line.intercept, "r2": line.rvalue**2}
        result |= {"pearson": line.rvalue, "spearman": rank.statistic}
        if n < FEWEST:
            notes.append(f"n = {n}: too few points for a p-value or an interval")
        else:
            result |= {"pearson_p": stats.pearsonr(a, b).pvalue, "spearman_p": rank.pvalue}
            if number < n:
                notes.append(
                    f"{n} points of {number} model{'s' if number > 1 else ''} are not independent, "
                    "as the p-values take them to be"
                )
            notes += _interval(result, bootstrap_r2(a, b, owners, resamples=resamples, seed=seed))
            if covariates is not None:
                notes += _held_fixed(result, a, b, covariates[known])
    return result | {"note": "; ".join(notes)}


def _interval(result: dict[str, Any], draws: NDArray[np.float64]) -> list[str]:
    """Fill in the interval of R²; return what has to be said about it."""
    if result["models"] < 2:
        return ["one model: no interval by resampling models"]
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return ["no interval: R² is defined in none of the resamples"]
    result["r2_low"], result["r2_high"] = np.percentile(defined, [2.5, 97.5])
    notes = []
    if result["models"] < FEWEST:
        notes.append(f"interval from {result['models']} models only")
    if len(defined) < len(draws):
        lost = 1 - len(defined) / len(draws)
        notes.append(f"R² undefined in {lost:.1%} of the resamples, which are left out")
    return notes


def _held_fixed(
    result: dict[str, Any], x: NDArray[np.float64], y: NDArray[np.float64], held: pd.DataFrame
) -> list[str]:
    """Fill in the partial correlation; return what has to be said about it."""
    held = held.dropna(axis=1, how="all")
    whole = held.notna().all(axis=1).to_numpy()
    held, x, y = held[whole], x[whole], y[whole]
    held = held.loc[:, [not is_constant(held[name]) for name in held]] if len(held) else held
    result |= {"partial_n": len(held), "partial_given": ", ".join(held.columns)}
    if not len(held.columns):
        return ["partial: nothing known to hold fixed"]
    partial = partial_correlation(x, y, held.to_numpy(float))
    result |= {"partial": partial.r, "partial_p": partial.p}
    if np.isfinite(partial.r):
        return []
    if partial.freedom < 2:
        return [f"partial: too few points ({len(x)}) for {len(held.columns)} covariates"]
    return ["partial: the covariates determine the predictor or the score"]


# --------------------------------------------------------------------------------------- subsets


class Subset(NamedTuple):
    """Some of the points, by a reason: `kind` is the reason, `name` says it in words."""

    kind: str
    name: str
    chosen: pd.Series


def subsets(
    table: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    higher_is_better: bool = True,
    score_above: Sequence[float] = (),
    size_classes: Mapping[str, tuple[float, float]] = SIZE_CLASSES,
) -> Iterator[Subset]:
    """Yield the subsets of points that are looked at.

    Checkpoints: all of them, those with any training behind them, the final ones, those of each
    model. Of the final ones: size classes, families, all but one family, base and fine-tuned
    models, the better half by score, scores above given ones. A subset that is empty, or no smaller
    than what it is taken from, is left out; so is one of fewer than two points (but for `final`).

    Args:
        table: columns model, family, base, parameters, untrained, final, value (the score).
        checkpoints: `final` leaves out everything that is about other checkpoints.
        higher_is_better: which half is the better one.
        score_above: thresholds of the score's own unit.
        size_classes: name to [low, high) in parameters.

    """
    every = pd.Series(True, index=table.index)
    final, trained = table["final"].astype(bool), ~table["untrained"].astype(bool)
    if checkpoints == "all" and not final.all():
        yield Subset("checkpoints", "all checkpoints", every)
        if 2 <= trained.sum() < len(table) and (trained != final).any():
            yield Subset("checkpoints", "trained", trained)
    yield Subset("checkpoints", "final", final)
    if checkpoints == "all":
        for model, own in table.groupby("model").groups.items():
            if 2 <= len(own) < len(table):
                yield Subset("one model", f"checkpoints of {model}", _only(table, own))

    family, size, base = table["family"], table["parameters"], table["base"]
    value = table["value"] if higher_is_better else -table["value"]
    finer = [
        Subset("size class", name, size.ge(low) & size.lt(high))
        for name, (low, high) in size_classes.items()
    ]
    names = sorted(family[final].dropna().unique())
    finer += [Subset("family", f"family {name}", family.eq(name)) for name in names]
    finer += [Subset("without family", f"without {name}", family.ne(name)) for name in names]
    finer += [
        Subset("tuning", "base models", base.eq(True)),
        Subset("tuning", "fine-tuned models", base.eq(False)),
        Subset("score range", "better half by score", value.gt(value[final].median())),
    ]
    finer += [
        Subset("score range", f"score > {limit:g}", table["value"].gt(limit))
        for limit in score_above
    ]
    for kind, name, chosen in finer:
        mask = chosen & final
        if 2 <= mask.sum() < final.sum():
            yield Subset(kind, name, mask)


def _only(table: pd.DataFrame, index: Any) -> pd.Series:
    return pd.Series(table.index.isin(index), index=table.index)


# ------------------------------------------------------------------------------------- the table


def correlate(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    score_above: Sequence[float] = (),
    size_classes: Mapping[str, tuple[float, float]] = SIZE_CLASSES,
    correction: Correction = "holm",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold every predictor against every score, in every subset of the points.

    Args:
        table: one row per checkpoint, as `statistics.points.points` returns it.
        scores: columns model, checkpoint, score, metric, value, higher_is_better. A score of
            another name is also a predictor (`arc.accuracy`): does one benchmark do as well?
        checkpoints: see :func:`subsets`.
        score_above: see :func:`subsets`.
        size_classes: see :func:`subsets`.
        correction: for multiple comparisons, Holm or Benjamini-Hochberg, over the predictors that
            are compared on the same points and the same score (their number is `comparisons`).
        resamples: of the bootstrap.
        seed: of the bootstrap; recorded in every row.

    Returns:
        One row per predictor × score × metric × subset, with :data:`COLUMNS`; no row when none of
        the points has a score.

    Raises:
        UserError: a checkpoint has two values of one metric.

    """
    metrics = ["score", "metric"]
    twice = scores[scores.duplicated([*CHECKPOINT, *metrics])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"{row['model']} {row['checkpoint']} has two values of {row['score']} {row['metric']}"
        )
    if table.merge(scores, on=CHECKPOINT).empty:
        return pd.DataFrame(columns=list(COLUMNS))
    wide = one_column_each(scores)
    rows: list[dict[str, Any]] = []
    for (score, metric), own in scores.groupby(metrics, sort=True):
        higher = bool(own["higher_is_better"].iloc[0])
        scored = table.merge(own[[*CHECKPOINT, "value"]], on=CHECKPOINT)
        scored = scored.merge(wide, left_on=CHECKPOINT, right_index=True, how="left")
        others = [
            f"{each}.{name}"
            for each, name in scores[metrics].drop_duplicates().sort_values(metrics).to_numpy()
            if each != score
        ]
        for subset in subsets(
            scored,
            checkpoints=checkpoints,
            higher_is_better=higher,
            score_above=score_above,
            size_classes=size_classes,
        ):
            part = scored[subset.chosen]
            for predictor in [*MEASURES, *FACTS, *others]:
                if part[predictor].isna().all():
                    continue
                held = [c for c in COVARIATES if c not in (predictor, f"log_{predictor}")]
                related = relate(
                    part[predictor],
                    part["value"],
                    part["model"],
                    covariates=part[held],
                    resamples=resamples,
                    seed=seed,
                )
                about = {"predictor": predictor, "score": score, "metric": metric}
                about |= {"higher_is_better": higher}
                about |= {"subset": subset.name, "subset_kind": subset.kind}
                rows.append({**about, **related})
    result = pd.DataFrame(rows)
    result = adjust(result, by=[*metrics, "subset"], correction=correction)
    return result.assign(resamples=resamples, seed=seed)[list(COLUMNS)]


def one_column_each(scores: pd.DataFrame) -> pd.DataFrame:
    """Spread scores over columns `score.metric`, one row per (model, checkpoint)."""
    if scores.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=CHECKPOINT))
    named = scores.assign(column=scores["score"] + "." + scores["metric"])
    return named.pivot_table(index=CHECKPOINT, columns="column", values="value")


def adjust(table: pd.DataFrame, by: list[str], correction: Correction = "holm") -> pd.DataFrame:
    """Adjust the p-values of each group for the number of them.

    Args:
        table: columns `by`, pearson_p and spearman_p; a missing p is no comparison.
        by: the columns that tell the groups apart.
        correction: `holm` (family-wise error) or `fdr_bh` (false discovery rate).

    Returns:
        The table with pearson_p_adjusted, spearman_p_adjusted, comparisons and correction.

    """
    table = table.assign(
        pearson_p_adjusted=np.nan, spearman_p_adjusted=np.nan, comparisons=0, correction=correction
    )
    for _, group in table.groupby(by, sort=False):
        for name in ("pearson_p", "spearman_p"):
            given = group[name].dropna()
            if len(given):
                adjusted = _adjusted(given.to_numpy(float), correction)
                table.loc[given.index, f"{name}_adjusted"] = adjusted
                table.loc[group.index, "comparisons"] = len(given)
    return table


def _adjusted(p: NDArray[np.float64], correction: Correction) -> NDArray[np.float64]:
    # statsmodels has Holm's too, but collects garbage at every call, which takes 0.1 s.
    if correction == "fdr_bh":
        from scipy.stats import false_discovery_control

        return np.asarray(false_discovery_control(p))
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return stepped[np.argsort(order)]


# --------------------------------------------------------------------------- through the catalog


def read_scores(catalog: Catalog) -> pd.DataFrame:
    """Return all scores of a catalog: model, checkpoint, score, metric, value, ….

    Columns: standard_error (missing where unknown), n, higher_is_better, source. A study without
    scores has no rows.
    """
    found = catalog.search(kind="score")
    if not len(found):
        names = [*CHECKPOINT, "score", "metric", "value", "standard_error", "n"]
        return pd.DataFrame(columns=[*names, "higher_is_better", "source"])
    return found.frame()


def write_statistics(
    catalog: Catalog,
    out: str | Path,
    *,
    k: int = 10,
    variant: str = "frobenius",
    checkpoints: Literal["all", "final"] = "all",
    score: str | None = None,
    metric: str | None = None,
    score_above: Sequence[float] = (),
    correction: Correction = "holm",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Path]:
    """Read measurements and scores through the catalog and write the statistics.

    Args:
        catalog: has entries of the kinds model, coupling, trajectory, spectra and score.
        out: the correlation table; the others are written beside it.
        k: how many singular vectors the coupling is of.
        variant: which mis-coupling.
        checkpoints: as in :func:`correlate`.
        score: the score that the study is about, which figures and report show; the rows about
            it have `headline` set. Unset, all have.
        metric: of that score; unset, every one.
        score_above: as in :func:`correlate`, like the rest.
        correction: as there.
        resamples: as there.
        seed: as there.

    Returns:
        The files by kind: `correlation` (:func:`correlate`), `predictors`
        (`statistics.points.points` with one more column per score, `score.metric`),
        `variance` (`statistics.variance.components`, of the final checkpoints) and
        `correlation_by_k` (:func:`correlation_by_k`).

    Raises:
        UserError: the catalog lacks what is asked for.

    """
    from blockcoupling.statistics.variance import components

    values = prompt_values(catalog, k=k, variant=variant)
    table = points(values, checkpoint_facts(catalog))
    scores = read_scores(catalog)
    correlation = correlate(
        table,
        scores,
        checkpoints=checkpoints,
        score_above=score_above,
        correction=correction,
        resamples=resamples,
        seed=seed,
    )
    if correlation.empty:
        logger.warning("no checkpoint has a score: there is nothing to hold measurements against")
    correlation["headline"] = _is_named(correlation, score, metric)
    finals = table.loc[table["final"], CHECKPOINT]
    spread = components(values.merge(finals, on=CHECKPOINT), list(MEASURES))
    predictors = table.merge(
        one_column_each(scores), left_on=CHECKPOINT, right_index=True, how="left"
    )

    by_k = correlation_by_k(
        catalog, scores, score, metric, checkpoints=checkpoints, resamples=resamples, seed=seed
    )
    tables = {
        "correlation": correlation.assign(k=k, variant=variant),
        "predictors": predictors.assign(k=k, variant=variant),
        "variance": spread.assign(k=k, variant=variant),
        "correlation_by_k": by_k,
    }
    target = Path(out)
    files = {name: target.with_name(f"{name}.parquet") for name in tables} | {"correlation": target}
    for name, content in tables.items():
        with replacing(files[name]) as fresh:
            content.to_parquet(fresh, index=False)
    return files


def correlation_by_k(
    catalog: Catalog,
    scores: pd.DataFrame,
    score: str | None,
    metric: str | None,
    *,
    checkpoints: Literal["all", "final"] = "all",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold coupling against one score, for every K and variant that were tabulated.

    Args:
        catalog: has the measurements of a study.
        scores: as :func:`read_scores` returns them.
        score: name of the score, unset: the first.
        metric: of that score, likewise.
        checkpoints: which points, as in :func:`subsets`.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        variant, k, score, metric, subset, and what :func:`relate` returns.

    """
    for column, wanted in (("score", score), ("metric", metric)):
        if len(scores):
            scores = scores[scores[column] == (wanted or scores[column].iloc[0])]
    facts, rows = checkpoint_facts(catalog), []
    last = catalog.search(kind="trajectory").frame(
        columns=[*PROMPT, "token"], filters=[("is_last", "==", True)]
    )
    coupling = at_last_token(
        catalog.search(kind="coupling").frame(), last.rename(columns={"token": "last"})
    )
    values = coupling.groupby(["variant", "k", *PROMPT], as_index=False)[["coupling"]].mean()
    if not np.isfinite(values["coupling"]).all():
        row = values[~np.isfinite(values["coupling"])].iloc[0]
        raise MeasurementError(
            f"{row['model']} {row['checkpoint']}, {row['dataset']} prompt {row['prompt']}: its "
            f"coupling is not finite for K = {row['k']}, variant {row['variant']}"
        )
    for (variant, k), own in values.groupby(["variant", "k"]):
        table = points(own, facts, ["coupling"])
        table = table.merge(scores[[*CHECKPOINT, "score", "metric", "value"]], on=CHECKPOINT)
        if table.empty:
            break
        subset = next(subsets(table, checkpoints=checkpoints))
        part = table[subset.chosen]
        rows.append(
            {
                "variant": variant,
                "k": int(str(k)),
                "score": part["score"].iloc[0],
                "metric": part["metric"].iloc[0],
                "subset": subset.name,
                **relate(
                    part["coupling"],
                    part["value"],
                    part["model"],
                    resamples=resamples,
                    seed=seed,
                ),
            }
        )
    columns = ["variant", "k", "score", "metric", "subset", "n", "models", "slope", "intercept"]
    columns += ["r2", "r2_low", "r2_high", "pearson", "pearson_p", "spearman", "spearman_p", "note"]
    return pd.DataFrame(rows, columns=columns)


def _is_named(table: pd.DataFrame, score: str | None, metric: str | None) -> pd.Series:
    named = pd.Series(True, index=table.index, dtype=bool)
    for column, wanted in (("score", score), ("metric", metric)):
        named &= True if wanted is None else table[column].eq(wanted)
    if len(table) and not named.any():
        have = (table["score"] + " " + table["metric"]).drop_duplicates()
        asked = " ".join(filter(None, (score, metric)))
        raise UserError(f"no score {asked!r} in the catalog; there are: {', '.join(have)}")
    return named
