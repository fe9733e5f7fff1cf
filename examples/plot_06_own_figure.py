"""
Your own figure
===============

How mis-coupling depends on the distance between two blocks, prompt by prompt.
"""

import matplotlib.pyplot as plt
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc

torch.manual_seed(0)
shape = {"num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=32, **shape))
texts = ["The capital of France is", "Two roads diverged in a yellow wood"]
ds = bc.measure(model, lambda text: list(text.encode()), texts, k=5)
m = bc.miscoupling(ds, k=5).isel(pair=0)

figure, axes = plt.subplots(figsize=(4.5, 3))
distance = abs(m["block"] - m["block_other"]).rename("distance")
for prompt, text in zip(m, texts, strict=True):
    by_distance = prompt.where(distance > 0).groupby(distance).mean()
    axes.plot(by_distance["distance"], by_distance, "o-", label=text)
axes.set(xlabel="distance between blocks", ylabel="mis-coupling, K = 5", xlim=(0.8, 5.2))
axes.legend()
