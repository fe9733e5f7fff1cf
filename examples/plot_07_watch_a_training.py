"""
A training loop, watched
========================

A small language model learns the built-in text. Its coupling emerges while it does, live in
TensorBoard if that is installed (``pip install tensorboard``).
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling as bc
from blockcoupling.sources.corpus import corpus

text = torch.tensor(list("\n".join(p.text for p in corpus().share(1.0)).encode()))
torch.manual_seed(0)
shape = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=32, **shape))

# %%
# The watcher is called after every update, and measures every 20th. Without ``budget=None`` it
# would skip steps to stay below 2 % of the time, which a training of seconds is too short for.

prompts = ["The value of the expression is", "If the object is a string, then"]
watcher = bc.Watcher(model, prompts, lambda text: list(text.encode()), every=20, budget=None)
logs = tempfile.mkdtemp()  # tensorboard --logdir LOGS
try:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(logs)
except ModuleNotFoundError:
    writer = None

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
losses = []
for step in range(121):
    values = watcher(step)
    if values and writer:
        for name, value in values.items():
            writer.add_scalar(f"coupling/{name}", value, step)
    starts = torch.randint(len(text) - 64, (8,)).tolist()
    batch = torch.stack([text[start : start + 64] for start in starts])
    loss = model(batch, labels=batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())

# %%
# The emergence of coupling, from what was logged.

figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(5, 4.5))
steps = [line["step"] for line in watcher.history]
above.plot(np.convolve(losses, np.ones(10) / 10, "valid"))
above.set(ylabel="loss")
for name in ("excess", "line_shape_score"):
    below.plot(steps, [line[name] for line in watcher.history], "o-", label=name)
below.set(xlabel="update")
below.legend()

# %%
# With transformers' Trainer the same is one line,
# ``bc.watch(trainer, prompts, tokenizer=tokenizer)``.
