"""
Read a study
============

A catalog finds results by what they are, not by where they are.
"""

import tempfile
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc
from blockcoupling.catalog import join

# %%
# Stands for the catalog of a study, ``bc.open_catalog("catalog/catalog.yml")``: two measurements
# of a model while it changes.

place = Path(tempfile.mkdtemp())
torch.manual_seed(0)
shape = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=32, **shape))
texts = ["The capital of France is", "Two roads diverged"]
watcher = bc.Watcher(
    model, texts, lambda text: list(text.encode()), every=1, budget=None, store=place, name="small"
)
watcher(0)
with torch.no_grad():
    for weight in model.parameters():
        weight.mul_(1.5)
watcher(1)
join(place.glob("*/svd.yml"), place / "catalog.yml")

# %%
# What is there, and what it can be searched by:

catalog = bc.open_catalog(place / "catalog.yml")
print(list(catalog))
catalog.facets()

# %%
# One entry, read as it is stored: an xarray dataset, lazy.

ds = catalog.search(model="small", checkpoint="step1").one(kind="svd").read()
bc.coupling(ds, k=10).compute()
