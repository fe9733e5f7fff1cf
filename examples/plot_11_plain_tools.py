"""
Plain xarray, Zarr and polars
=============================

Stores and tables are ordinary Zarr and Parquet: nothing of blockcoupling is needed to read them.
"""

import tempfile
from pathlib import Path

import polars as pl
import torch
import xarray as xr
import zarr
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc
from blockcoupling.reduce.tables import reduce_store

# %%
# A store and its tables, as a study has them below ``results/STUDY``.

place = Path(tempfile.mkdtemp())
torch.manual_seed(0)
shape = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=32, **shape))
texts = ["The capital of France is", "Two roads diverged"]
bc.Watcher(model, texts, lambda text: list(text.encode()), every=1, store=place)(0)
store = place / "step0" / "svd.zarr"
names = {"model": "small", "checkpoint": "step0", "dataset": "two"}
tables = reduce_store(store, place, k=[2, 5, 10], identity=names)

# %%
# xarray: a lazy dataset with named axes.

xr.open_zarr(store)["S"].isel(k=0).mean("prompt").compute()

# %%
# Zarr: arrays.

print(zarr.open_array(store / "A", mode="r").info)

# %%
# polars: the coupling by K and variant.

(
    pl.scan_parquet(place / "coupling.parquet")
    .filter(pl.col("variant") == "frobenius")
    .group_by("k")
    .agg(pl.col("coupling").mean(), pl.col("excess").mean())
    .sort("k")
    .collect()
)
