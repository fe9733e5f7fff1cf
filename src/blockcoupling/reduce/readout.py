"""The readout of singular vectors as a table: which tokens the model's own head reads in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from blockcoupling.errors import UserError


def readout(ds: xr.Dataset) -> pd.DataFrame:
    """Return the top tokens of ±u_k and ±v_k, one row each.

    Args:
        ds: dataset of the schema that was measured with `readout`; of a large one, select prompts
            and blocks first.

    Returns:
        prompt, token_in, token_out, block, vector (U: what the block writes, V: what it reads),
        sign, k, rank, token (id), text (at most 32 bytes of it), logit.

    Raises:
        UserError: the dataset has no readout.

    Example:
        >>> ds = bc.measure(model, tokenizer, "Two roads", k=5, readout=3)
        >>> words = bc.readout(ds)
        >>> len(words.query("block == 1 and vector == 'U' and k == 1 and sign == 1"))
        3
    """
    if "readout_token" not in ds:
        raise UserError(
            "the dataset has no readout: measure with readout=5 (in a study, extract.readout: 5)"
        )
    axes = ds["readout_token"].dims
    kept = ds[["readout_token", "readout_logit"]].drop_vars("token", errors="ignore")
    frame = kept.to_dataframe(dim_order=list(axes)).reset_index()
    frame["text"] = texts_of(ds["readout_text"].transpose(*axes, "byte").to_numpy()).ravel()
    frame = frame[frame["readout_token"] >= 0]  # the rest is padding
    names = {"k_read": "k", "readout_token": "token", "readout_logit": "logit"}
    columns = ["prompt", "token_in", "token_out", "block", "vector", "sign", "k", "rank"]
    return frame.rename(columns=names)[[*columns, "token", "text", "logit"]].reset_index(drop=True)


def texts_of(texts: np.ndarray) -> np.ndarray:
    """Return the texts along the last axis, bytes of UTF-8 that zeros follow."""
    rows = np.ascontiguousarray(texts).view(f"S{texts.shape[-1]}")[..., 0]
    return np.array([row.decode() for row in rows.ravel()], dtype=object).reshape(rows.shape)
