"""What the line figures show, read from the catalog: one function each, a tidy table for `lines`.

Their columns are described in :func:`blockcoupling.figures.lines.draw`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from blockcoupling.config.variants import VARIANTS
from blockcoupling.figures.data import (
    NothingToShow,
    at_last,
    ends,
    ends_of,
    first_prompt,
    settings,
)
from blockcoupling.statistics.points import (
    CHECKPOINT,
    PAIR,
    checkpoint_facts,
    mean_over_prompts,
    prompt_values,
    trajectories,
)
from blockcoupling.statistics.predictors import MEASURES, of_kind
from blockcoupling.statistics.scores import read_scores
from blockcoupling.wording import words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_REGULARITY = {each.name: each.label for each in of_kind("trajectory")}
_RANKS = {
    "jacobian_norm": "‖J‖",
    "participation_ratio": "participation ratio",
    "effective_rank": "entropy effective rank",
}
_INDICES = (1, 2, 5, 10, 20, 50)
_INVERTED = (1, 2, 5, 10)
_MOST_SCORES, _MOST_MODELS, _MOST_STAGES = 3, 8, 6
_COLUMNS = 3


def coupling_by_k(catalog: Catalog) -> pd.DataFrame:
    """Coupling of untrained and final checkpoints for every K, a panel per variant."""
    means = _means_at_ends(catalog, "coupling", ["variant", "k"], ["coupling"])
    means = means.sort_values("k", kind="stable")
    order = [name for name in VARIANTS if (means["variant"] == name).any()]
    means = pd.concat([means[means["variant"] == name] for name in order])
    title = means["variant"].map(words)
    return _points(means, x="k", y="coupling", line="model").assign(
        column=title,
        row="",
        title=title,
        style=means["state"].replace("trained", "final checkpoint"),
    )


def singular_values(catalog: Catalog) -> pd.DataFrame:
    """Singular values by block, a panel per checkpoint, a line per index."""
    wanted: Any = {"filters": [("k", "in", _INDICES)]}
    means = _means_at_ends(catalog, "singular_values", ["block", "k"], ["s"], **wanted)
    return _of_checkpoints(_points(means, x="block", y="s", line="k"), means, _INDICES)


def effective_ranks(catalog: Catalog) -> pd.DataFrame:
    """Norms and effective ranks by relative depth, a row per measure, a column per state."""
    means = _means_at_ends(catalog, "spectra", ["block"], list(_RANKS))
    means["depth"] = means["block"] / means.groupby("model")["block"].transform("max")
    rows = [
        _points(means, x="depth", y=measure, line="model").assign(
            column=means["state"], row=measure, label=label, title=means["state"] if n == 0 else ""
        )
        for n, (measure, label) in enumerate(_RANKS.items())
    ]
    table = pd.concat(rows, ignore_index=True)
    states = ["untrained", "trained"]
    return table.sort_values("column", key=lambda state: state.map(states.index), kind="stable")


def locality(catalog: Catalog, k: int | None = None, variant: str | None = None) -> pd.DataFrame:
    """Mis-coupling by distance, a panel per model, a line per checkpoint."""
    chosen = settings(catalog, k, variant)
    measured = catalog.search(kind="locality").facets().get("model", [])
    facts = checkpoint_facts(catalog)
    facts = facts[facts["model"].isin(measured)].sort_values(["parameters", "model", "step"])
    if facts.empty:
        raise NothingToShow("No model of this study was measured.")
    facts = pd.concat([_spread(own) for _, own in facts.groupby("model", sort=False)])
    stages = facts.sort_values(["step", "checkpoint"])["checkpoint"].drop_duplicates()
    table = at_last(
        catalog,
        "locality",
        list(facts[CHECKPOINT].itertuples(index=False, name=None)),
        filters=[("k", "==", chosen.k), ("variant", "==", chosen.variant)],
    )
    means = mean_over_prompts(table, [*CHECKPOINT, "distance"], ["miscoupling"])
    means = facts[CHECKPOINT].merge(means, on=CHECKPOINT)
    points = _points(means, x="distance", y="miscoupling", line="checkpoint").assign(
        line=pd.Categorical(means["checkpoint"], list(stages)),
        column=means["model"], row="", title=means["model"],
    )  # fmt: skip
    points.attrs = {"k": chosen.k, "variant": words(chosen.variant)}
    return points


def _spread(own: pd.DataFrame) -> pd.DataFrame:
    """Return the first row, the last, and evenly spread ones between."""
    wanted = np.linspace(0, len(own) - 1, min(_MOST_STAGES, len(own))).round().astype(int)
    return own.iloc[np.unique(wanted)]


def emergence(catalog: Catalog) -> pd.DataFrame:
    """Measures and scores against training step, a panel each, a line per model."""
    table = catalog.one(kind="predictors").read()
    table = table.dropna(subset="step").sort_values(["parameters", "model", "step"])
    table = table[table.groupby("model")["step"].transform("nunique") > 1]
    if table.empty:
        raise NothingToShow("No model of this study has several training checkpoints.")
    correlation = catalog.one(kind="correlation").read(columns=["score", "metric", "headline"])
    named = correlation.loc[correlation["headline"], ["score", "metric"]].drop_duplicates()
    scores = read_scores(catalog).merge(named.head(_MOST_SCORES), on=["score", "metric"])
    metrics = list(scores.groupby(["score", "metric"], sort=True))
    measures = {"coupling": f"coupling −⟨m⟩ (K = {table['k'].iloc[0]})", **_REGULARITY}
    # Equidistance only where it does not need a third row.
    chosen = list(measures)[: max(3, 2 * _COLUMNS - len(metrics))]
    shown = [
        _points(table, x="step", y=name, line="model").assign(column=name, label=measures[name])
        for name in chosen
    ]
    for (score, metric), values in metrics:
        own = table[[*CHECKPOINT, "step"]].merge(values, on=CHECKPOINT)
        own = own.rename(columns={"standard_error": "value_se"})
        label = words(f"{score}\n{metric}")
        points = _points(own, x="step", y="value", line="model")
        shown.append(points.assign(column=label, label=label))
    points = pd.concat(shown, ignore_index=True).assign(row="", title="")
    epochs = table["checkpoint"].str.startswith("epoch").any()
    points.attrs = {"unit": "epoch" if epochs else "training step"}
    return points


def inverse_singular_values(catalog: Catalog) -> pd.DataFrame:
    """1/s by block, means over prompts, a panel per checkpoint, a line per index."""
    tables = []
    for model, checkpoint, state in ends_of(catalog, most=_MOST_MODELS):
        wanted = [("k", "in", _INVERTED)]
        table = at_last(catalog, "singular_values", [(model, checkpoint)], filters=wanted)
        table = table[table["s"] > 0]  # a block that does nothing has no inverse
        of_block = table.assign(inverse=1 / table["s"]).groupby(["k", "block"], as_index=False)
        about = {"model": model, "checkpoint": checkpoint, "state": state}
        tables.append(of_block[["inverse"]].mean().assign(**about))
    means = pd.concat(tables, ignore_index=True)
    return _of_checkpoints(_points(means, x="block", y="inverse", line="k"), means, _INVERTED)


def full_spectra(catalog: Catalog) -> pd.DataFrame:
    """All singular values of a model's first prompt, a panel per checkpoint, a line per block."""
    tables = []
    for model, checkpoint, state in ends_of(catalog, most=_MOST_MODELS):
        ds = first_prompt(catalog, model, checkpoint)
        if ds is None or "S_full" not in ds:
            continue
        spectra = ds["S_full"].values[int(np.argmax(ds["token_out"].values))].astype(np.float64)
        blocks, count = spectra.shape
        about = {"model": model, "checkpoint": checkpoint, "state": state}
        index = np.tile(np.arange(1, count + 1), blocks)
        depth = np.repeat(np.arange(1, blocks + 1) / blocks, count)
        columns = {"k": index, "depth": depth, "s": spectra.ravel()}
        tables.append(pd.DataFrame(columns).assign(**about))
    if not tables:
        raise NothingToShow(
            "This study keeps the largest singular values only. Set extract.full: true for all."
        )
    table = pd.concat(tables, ignore_index=True)
    points = _of_checkpoints(_points(table, x="k", y="s", line="depth"), table)
    smallest = table.groupby(CHECKPOINT)["s"].quantile(0.02).min()
    points.attrs = {"limits": (smallest, 1.3 * table["s"].max())}
    return points


def correlation_by_k(catalog: Catalog) -> pd.DataFrame:
    """R² of coupling with the score, for every K and variant."""
    table = catalog.one(kind="correlation_by_k").read()
    if table.empty or table["r2"].isna().all():
        raise NothingToShow("No correlation can be computed: too few checkpoints have a score.")
    first = table.iloc[0]
    points = _points(table.sort_values("k"), x="k", y="r2", line="variant")
    points = points.assign(column="", row="", title=f"{first['subset']}, n = {first['n']}")
    order = [words(name) for name in table["variant"].drop_duplicates()]
    points["line"] = pd.Categorical(points["line"].map(words), order)
    points.attrs = {"score": words(f"{first['score']}, {first['metric']}"), "limits": (-0.03, 1.03)}
    return points


def by_dataset(catalog: Catalog, k: int | None = None, variant: str | None = None) -> pd.DataFrame:
    """Mean and standard deviation over prompts of final checkpoints, a row per measure."""
    chosen = settings(catalog, k, variant)
    trained = [(pair.model, pair.trained) for pair in ends(catalog) if pair.trained is not None]
    if not trained:
        raise NothingToShow("No trained model of this study was measured.")
    values = prompt_values(catalog, k=chosen.k, variant=chosen.variant)
    values = values[values[CHECKPOINT].apply(tuple, axis=1).isin(trained)]
    of_dataset = values.groupby(["dataset", "model"])
    rows = []
    for measure in ("coupling", *_REGULARITY):
        mean, spread = of_dataset[measure].mean(), of_dataset[measure].std().fillna(0)
        label = f"coupling (K = {chosen.k})" if measure == "coupling" else MEASURES[measure]
        table = pd.DataFrame({"y": mean, "low": mean - spread, "high": mean + spread})
        table = table.reset_index().rename(columns={"dataset": "line", "model": "x"})
        rows.append(table.assign(row=measure, label=label))
    return _by_model(pd.concat(rows, ignore_index=True), [model for model, _ in trained])


def regularity(catalog: Catalog) -> pd.DataFrame:
    """Regularity of the last token's trajectory, every prompt, a row per measure."""
    shown = pd.DataFrame(ends_of(catalog), columns=[*CHECKPOINT, "state"])
    measured = catalog.search(kind="coupling").frame(columns=PAIR)
    table = trajectories(catalog, measured).merge(shown, on=CHECKPOINT)
    # A trajectory with a step of zero has no such measure; the reduction says so.
    table = table.dropna(subset=list(_REGULARITY))
    rows = [
        pd.DataFrame({"x": table["model"], "y": table[measure], "line": table["state"]}).assign(
            row=measure, label=label
        )
        for measure, label in _REGULARITY.items()
    ]
    points = _by_model(pd.concat(rows, ignore_index=True), list(shown["model"].unique()))
    return points.assign(line=pd.Categorical(points["line"], ["untrained", "trained"]))


def _by_model(points: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Order points by model, all in one column of panels."""
    ordered = points.sort_values("x", key=lambda names: names.map(models.index), kind="stable")
    return ordered.assign(column="", title="")


def _means_at_ends(
    catalog: Catalog, kind: str, by: list[str], measures: list[str], **options: Any
) -> pd.DataFrame:
    """Return means over prompts of untrained and final checkpoints, the smallest model first."""
    tables = []
    for model, checkpoint, state in ends_of(catalog):
        # One checkpoint at a time: these tables are large.
        table = at_last(catalog, kind, [(model, checkpoint)], **options)
        means = mean_over_prompts(table, [*CHECKPOINT, *by], measures)
        tables.append(means.assign(state=state))
    return pd.concat(tables, ignore_index=True)


def _points(table: pd.DataFrame, *, x: str, y: str, line: str) -> pd.DataFrame:
    """Return the columns x, y and line, and what surrounds y, under the names that `lines` has."""
    names = {x: "x", y: "y", line: "line"}
    around = {f"{y}_se": "se", f"{y}_low": "low", f"{y}_high": "high"}
    names |= {old: new for old, new in around.items() if old in table}
    return table[list(names)].rename(columns=names)


def _of_checkpoints(
    points: pd.DataFrame, table: pd.DataFrame, lines: tuple[int, ...] | None = None
) -> pd.DataFrame:
    """Place points in a column for their model and a row for its state, titled with both."""
    title = table["model"] + ", " + table["checkpoint"]
    points = points.assign(column=table["model"], row=table["state"], title=title)
    points["label"] = table["state"] + "\n{y}"
    return points if lines is None else points.assign(line=pd.Categorical(points["line"], lines))
