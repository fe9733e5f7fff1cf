"""
Stop a training when coupling falls
===================================

What the watcher logs reaches every callback of transformers' Trainer, so that a callback can act on
it. Here the learning rate is far too high after a while, and coupling falls.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import blockcoupling as bc
from blockcoupling.sources.corpus import corpus


class StopWhenCouplingFalls(TrainerCallback):
    """Ends the training when the excess has fallen by `drop` below its best value."""

    def __init__(self, drop):
        self.drop, self.best = drop, float("-inf")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Compare a new measurement with the best one so far."""
        if "coupling/excess" in logs:
            self.best = max(self.best, logs["coupling/excess"])
            if logs["coupling/excess"] < self.best - self.drop:
                control.should_training_stop = True


text = torch.tensor(list("\n".join(p.text for p in corpus().share(1.0)).encode()))
windows = [
    {"input_ids": text[start : start + 64], "labels": text[start : start + 64]}
    for start in range(0, 64 * 1024, 64)
]
torch.manual_seed(0)
shape = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, hidden_size=32, **shape))

# %%
# A learning rate that grows without end, to a value that no model survives.

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
growing = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1.0, 1.15 ** (step - 60)))
arguments = TrainingArguments(
    tempfile.mkdtemp(),
    max_steps=200,
    per_device_train_batch_size=8,
    report_to=[],
    save_strategy="no",
    logging_steps=20,
    disable_tqdm=True,
    use_cpu=True,
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=windows,
    optimizers=(optimizer, growing),
    callbacks=[StopWhenCouplingFalls(drop=0.05)],
)
watcher = bc.watch(
    trainer,
    ["The value of the expression is", "If the object is a string, then"],
    tokenizer=lambda text: list(text.encode()),
    every=10,
    budget=None,
    store=None,
)
trainer.train()
print(f"stopped after update {trainer.state.global_step} of {arguments.max_steps}")

# %%
figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(*zip(*((line["step"], line["excess"]) for line in watcher.history), strict=True), "o-")
axes.set(xlabel="update", ylabel="excess of coupling over chance")
