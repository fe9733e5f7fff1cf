"""
Block ablation
==============

What does skipping a block cost, and does a block that couples with its neighbours cost less?
"""

import matplotlib.pyplot as plt
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc
from blockcoupling.lab import damage

torch.manual_seed(0)
shape = {"num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 128}
config = GPTNeoXConfig(vocab_size=256, hidden_size=32, initializer_range=0.1, **shape)
model = GPTNeoXForCausalLM(config)
texts = ["The capital of France is", "Two roads diverged in a yellow wood"]


def tokenizer(text):
    """Token ids of a text: its bytes."""
    return list(text.encode())


# %%
# The KL divergence between the predictions of the whole model and of one without a block.

cost = damage(model, tokenizer, texts, treatments=["skip"])
cost = cost["kl"].mean("prompt").to_dataframe("kl")
kl = cost.loc[cost["block"] == cost["block_other"], "kl"].to_numpy()  # one block at a time
ds = bc.measure(model, tokenizer, texts, k=5)
m = bc.miscoupling(ds, k=5).mean(("prompt", "pair"))
near = m.where(abs(m["block"] - m["block_other"]) == 1).mean("block_other")

figure, axes = plt.subplots(figsize=(4.5, 3))
axes.scatter(near, kl)
for block, x, y in zip(near["block"].values, near.values, kl, strict=True):
    axes.annotate(f" {block}", (x, y))
axes.set(xlabel="mis-coupling with its neighbours", ylabel="KL divergence, nats a token")
