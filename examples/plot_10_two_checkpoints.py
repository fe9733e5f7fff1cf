"""
Two checkpoints of one model
============================

The same prompts before and after training: which pairs of blocks have come to couple?
"""

import matplotlib.pyplot as plt
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc
from blockcoupling.sources.corpus import corpus

text = torch.tensor(list("\n".join(p.text for p in corpus().share(1.0)).encode()))
torch.manual_seed(0)
shape = {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=32, **shape))
prompts = ["The value of the expression is", "If the object is a string, then"]


def excess():
    """How far every pair of blocks is above chance, averaged over prompts."""
    ds = bc.measure(model, lambda text: list(text.encode()), prompts, k=10)
    return bc.excess(ds, k=10).mean(("prompt", "pair"))


before = excess()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(120):
    starts = torch.randint(len(text) - 64, (8,)).tolist()
    batch = torch.stack([text[start : start + 64] for start in starts])
    model(batch, labels=batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
after = excess()

figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
for each, values, title in zip(axes, (before, after), ("untrained", "trained"), strict=True):
    values.where(values["block"] != values["block_other"]).plot(
        ax=each, vmin=-0.5, vmax=0.5, cmap="RdBu_r"
    )
    each.set(title=title)
