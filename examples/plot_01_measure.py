"""
Measure a model
===============

Singular triples of every block's Jacobian at two prompts, and how well they line up.
"""

import matplotlib.pyplot as plt
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc

# %%
# Any transformer will do, and any callable from text to token ids. This one is random and reads
# bytes; with a model of the hub it would be ``AutoModelForCausalLM.from_pretrained(NAME)`` and
# ``AutoTokenizer.from_pretrained(NAME)``.

torch.manual_seed(0)
config = GPTNeoXConfig(
    vocab_size=256,
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=192,
)
model = GPTNeoXForCausalLM(config)


def tokenizer(text):
    """Token ids of a text: its bytes."""
    return list(text.encode())


ds = bc.measure(model, tokenizer, ["The capital of France is", "Two roads diverged"], k=10)
ds

# %%
# Mis-coupling of every pair of blocks, averaged over prompts: 0 where two blocks share their
# singular vectors, about 1 where they know nothing of each other.

m = bc.miscoupling(ds, k=10).mean(("prompt", "pair"))
figure, axes = plt.subplots(figsize=(4, 3.4))
m.plot(ax=axes, cmap="viridis_r")
axes.set_aspect("equal")

# %%
# One number for each prompt: minus the mean over pairs of different blocks.

bc.coupling(ds, k=10).to_dataframe("coupling")
