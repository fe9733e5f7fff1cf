"""Which points are of the same weights: copies are one model, however many names they have.

A quantized copy, a directory under a second name, a revision that is another's commit: their
numbers differ by little or nothing, and counting each as a model of its own would make p-values
too small and intervals too narrow. So

- checkpoints with the same weights are one point, the mean of the copies (`weights`), and
- models that share the weights of a trained checkpoint are one unit (`origin`): the bootstrap draws
  it whole, and what is left out is left out whole.

Untrained weights make no two models one: runs that begin alike are trained apart.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def origins(records: pd.DataFrame, untrained: pd.Series) -> pd.DataFrame:
    """Tell which checkpoints have the same weights, and which models are of one origin.

    Weights are the same when the digest of their files is (`sources.identity`), or, in records
    without one, when they are of the same place: a directory, or a repository of the hub at one
    commit. Newly initialised ones have the same seed besides. How they are rounded or quantized
    after loading is no matter.

    Args:
        records: one row per checkpoint: model, checkpoint, and of the model's record what there is
            of identity, path, id, revision, init_seed, quantization.
        untrained: of each row.

    Returns:
        `weights`, "MODEL CHECKPOINT" of the first row with these weights, and `origin`, the first
        model of the unit; unquantized ones come first, then the order of names.

    """
    rounded = records.get("quantization", pd.Series(index=records.index, dtype=object)).notna()
    order = records.assign(rounded=rounded).sort_values(["rounded", "model", "checkpoint"]).index
    keys = pd.Series([_key(row) for row in records.to_dict("records")], index=records.index)
    names = records["model"] + " " + records["checkpoint"]
    first = names.loc[order].groupby(keys.loc[order], sort=False).transform("first")
    weights = first.reindex(records.index)

    models, model = np.unique(records["model"].astype(str), return_inverse=True)
    _, shared = np.unique(weights.where(~untrained, names), return_inverse=True)
    size = len(models) + shared.max(initial=-1) + 1
    links = coo_array((np.ones(len(records)), (model, len(models) + shared)), shape=(size, size))
    unit = pd.Series(connected_components(links, directed=False)[1][model], index=records.index)
    named = records["model"].loc[order].groupby(unit.loc[order], sort=False).transform("first")
    return pd.DataFrame({"weights": weights, "origin": named.reindex(records.index)})


def _key(record: dict[Any, Any]) -> str:
    """Return what weights are recognised by."""

    def given(name: str) -> Any:
        value = record.get(name)
        return None if pd.isna(value) else value

    identity = record.get("identity")
    if isinstance(identity, dict):
        # Newly initialised weights have no files: they follow from configuration and seed.
        place = ["content", identity["weights"] or identity["config"]]
    elif given("path"):
        place = ["path", os.path.realpath(str(given("path")))]
    elif given("id"):
        place = ["hub", given("id"), given("revision")]
    else:
        place = ["model", record["model"], record["checkpoint"]]
    return "\0".join(map(str, [*place, given("init_seed")]))


def merge_copies(points: pd.DataFrame) -> pd.DataFrame:
    """Make one point of those with the same weights: the mean of their numbers.

    Args:
        points: one row per checkpoint, with `origin` and `weights`; without these, every model is
            taken to be of its own.

    Returns:
        One row per origin and weights, in the same order. `model` is the origin, numbers are
        means over the copies that have them, anything else is the first copy's; `final` and
        `untrained` hold where they do for any copy; `copies` is their number.

    """
    if "origin" not in points:
        return points.assign(origin=points["model"], copies=1)
    if not points.duplicated(["origin", "weights"]).any():
        return points.assign(model=points["origin"], copies=1)
    ways = {
        name: "mean" if pd.api.types.is_any_real_numeric_dtype(column) else _first
        for name, column in points.items()
        if name not in ("origin", "weights")
    }
    ways |= {name: "any" for name in ("final", "untrained") if name in points}
    grouped = points.groupby(["origin", "weights"], sort=False)
    merged = grouped.agg(ways).assign(copies=grouped.size()).reset_index()
    return merged.assign(model=merged["origin"])


def of_one_origin(values: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Make one model of copies, prompt by prompt.

    Args:
        values: one row per checkpoint and prompt: model, checkpoint, dataset, prompt, measures.
        points: the checkpoints that are kept: model, checkpoint, origin, weights.

    Returns:
        As `values`; of copies the mean, under the origin's name.

    """
    own = ["model", "checkpoint"]
    kept = values.merge(points[[*own, "origin", "weights"]], on=own)
    if not points.duplicated(["origin", "weights"]).any():
        return kept.drop(columns=["origin", "weights"])
    kept = kept.drop(columns=own).rename(columns={"origin": "model", "weights": "checkpoint"})
    return kept.groupby([*own, "dataset", "prompt"], as_index=False).mean()


def _first(values: pd.Series) -> Any:
    return values.iloc[0]
