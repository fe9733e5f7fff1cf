"""
Your own statistic on a store
=============================

A store keeps A[i, j] = U_jᵀ J_i V_j for all pairs of blocks. Any statistic of it is a line of
xarray, in memory or lazy.
"""

import numpy as np
import torch
import xarray as xr
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc

torch.manual_seed(0)
shape = {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 192}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=48, **shape))
ds = bc.measure(model, lambda text: list(text.encode()), ["Two roads diverged"], k=10)

# %%
# Which share of A is on its diagonal? With aligned singular vectors it is all of it.


def diagonal_share(a):
    """Sum of squares on the diagonal of the last two axes, relative to all entries."""
    diagonal = np.diagonal(a, axis1=-2, axis2=-1)
    return (diagonal**2).sum(-1) / (a**2).sum((-2, -1))


share = xr.apply_ufunc(
    diagonal_share, ds["A"], input_core_dims=[["k", "k_other"]], dask="parallelized"
)
share.mean(("prompt", "pair")).to_pandas().round(3)

# %%
# A block with itself has all of it, up to rounding.

np.diag(share[0, 0]).round(5)
