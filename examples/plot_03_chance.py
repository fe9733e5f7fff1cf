"""
Chance and excess
=================

Models of different width have a different mis-coupling by chance. The excess takes it out: 0 by
chance, 1 at perfect coupling.
"""

import matplotlib.pyplot as plt
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc

rows = []
for width in (16, 32, 64):
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 4 * width}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=width, **shape))
    ds = bc.measure(model, lambda text: list(text.encode()), ["The capital of France is"], k=10)
    rows.append((width, -float(bc.coupling(ds, 10).mean()), float(bc.chance(ds, 10).mean())))

# %%
# The models are random: their mis-coupling falls with the width, as chance does.

for width, m, chance in rows:
    print(f"d = {width:2}: m = {m:.3f}, by chance {chance:.3f}, excess {1 - m / chance:+.3f}")

figure, axes = plt.subplots(figsize=(4.5, 3))
axes.plot([r[0] for r in rows], [r[1] for r in rows], "o-", label="measured")
axes.plot([r[0] for r in rows], [r[2] for r in rows], "s--", label="by chance")
axes.set(xlabel="width d", ylabel="mis-coupling, K = 10", xticks=[r[0] for r in rows])
axes.legend()
