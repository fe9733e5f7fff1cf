"""Names of a store's pairs of tokens, if all prompts were measured at the same ones."""

from __future__ import annotations

import numpy as np
import xarray as xr

from blockcoupling.store.svd import MEAN, NO_PAIR, last_token

MOST = 4
"""Pairs that have matrices of their own; with more pairs, only the mean is kept."""


def pair_labels(ds: xr.Dataset) -> list[str]:
    """Return a name for each pair of tokens: `class`, `last`, `0`, `class to last`.

    Args:
        ds: a store.

    Returns:
        The names in the order of `pair`; none where there is one pair, or more than `MOST`, or
        where prompts differ in what a pair is.
    """
    if not 1 < ds.sizes["pair"] <= MOST:
        return []
    labels = []
    for pair in range(ds.sizes["pair"]):
        first, second = (
            _label(ds, ds[name].isel(pair=pair).to_numpy()) for name in ("token_in", "token_out")
        )
        if first is None or second is None:
            return []
        labels.append(first if first == second else f"{first} to {second}")
    return labels


def _label(ds: xr.Dataset, tokens: np.ndarray) -> str | None:
    """Return the name of all prompts' token; None if they differ."""
    if (tokens == NO_PAIR).any():
        return None
    if (tokens == MEAN).all():
        return "mean"
    from_end = tokens - last_token(ds).to_numpy()
    if (from_end == 0).all():
        return "last"
    if (tokens == tokens[0]).all():
        first = str(ds["token_text"].values[0, tokens[0]]) if "token_text" in ds.coords else ""
        return first if first and ds.attrs.get("modality") == "image" else str(tokens[0])
    return f"−{1 - from_end[0]}" if (from_end == from_end[0]).all() else None
