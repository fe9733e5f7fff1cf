"""Which points have the same weights: copies count as one model, whatever their names.

Numbers of a quantized copy, or of a directory under a second name, hardly differ. Counting each as
an independent model would make p-values too small and intervals too narrow. Therefore

- checkpoints with the same weights are one point, the mean of the copies (`weights`), and
- models that share the weights of a trained checkpoint are one unit (`origin`), which is resampled
  and left out as a whole.

Equal untrained weights do not make two models one unit: they are then trained separately.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def origins(records: pd.DataFrame, untrained: pd.Series) -> pd.DataFrame:
    """Find checkpoints with the same weights, and models derived from the same weights.

    Weights are the same when the digests of their files are equal (`sources.identity`), or, in
    records without one, when they come from the same directory, or from the same commit of a hub
    repository. Newly initialised weights need the same seed, too. Rounding and quantization after
    loading are ignored.

    Args:
        records: one row per checkpoint: model, checkpoint, and those of identity, path, id,
            revision, init_seed, quantization that the model's record has.
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
    """Return the key by which equal weights are recognised."""

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
    """Merge points with the same weights into one: the mean of their numbers.

    Args:
        points: one row per checkpoint, with `origin` and `weights`; without these, models are
            independent.

    Returns:
        One row per origin and weights, in the same order. `model` is the origin, numbers are
        means over the copies that have them, anything else is the first copy's; `final` and
        `untrained` are true where any copy's are; `copies` is their number.
    """
    if "origin" not in points:
        return points.assign(origin=points["model"], copies=1)
    if not points.duplicated(["origin", "weights"]).any():
        return points.assign(model=points["origin"], copies=1)
    ways = {
        name: "mean"
        if pd.api.types.is_any_real_numeric_dtype(column)
        else lambda values: values.iloc[0]
        for name, column in points.items()
        if name not in ("origin", "weights")
    }
    ways |= {name: "any" for name in ("final", "untrained") if name in points}
    grouped = points.groupby(["origin", "weights"], sort=False)
    merged = grouped.agg(ways).assign(copies=grouped.size()).reset_index()
    return merged.assign(model=merged["origin"])


def of_one_origin(values: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Merge copies into one model, prompt by prompt.

    Args:
        values: one row per checkpoint and prompt: model, checkpoint, dataset, prompt, measures.
        points: the checkpoints to keep: model, checkpoint, origin, weights.

    Returns:
        As `values`, with the mean of copies under the origin's name.
    """
    own = ["model", "checkpoint"]
    kept = values.merge(points[[*own, "origin", "weights"]], on=own)
    if not points.duplicated(["origin", "weights"]).any():
        return kept.drop(columns=["origin", "weights"])
    kept = kept.drop(columns=own).rename(columns={"origin": "model", "weights": "checkpoint"})
    return kept.groupby([*own, "dataset", "prompt"], as_index=False).mean()
