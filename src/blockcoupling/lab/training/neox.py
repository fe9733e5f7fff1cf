"""Training a small GPT-NeoX from scratch, from step to step."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from blockcoupling.config.models import Training
from blockcoupling.lab.training.penalty import Penalties
from blockcoupling.lab.training.run import Run, another
from blockcoupling.lab.training.schedule import warmed_cosine
from blockcoupling.lab.training.stochastic_depth import drop_neox_branches
from blockcoupling.lab.training.tied import tie, written_out
from blockcoupling.lab.training.tokenizer import END_OF_TEXT_ID, VOCABULARY, byte_tokenizer
from blockcoupling.sources.corpus import corpus
from blockcoupling.transformer.blocks import Blocks

WARMUP = 0.05
FINAL_LEARNING_RATE = 0.1
BETAS = (0.9, 0.95)
GRADIENT_NORM = 1.0

_DRAW = "draw"  # the state of the generator that places the windows of text
_PENALTY = "penalty"  # and of the one that says where the penalty falls


def new_model(shape: Training) -> GPTNeoXForCausalLM:
    """The untrained model, in transformers' own initialisation for the seed."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden_size,
        max_position_embeddings=shape.context,
        attention_dropout=shape.dropout,
        hidden_dropout=shape.dropout,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        return GPTNeoXForCausalLM._from_config(config, attn_implementation="eager")


def training_bytes(share: float = 1.0, shuffled: float = 0.0) -> np.ndarray:
    """Training passages as token ids, each after an end-of-text token; shape (bytes,), int64.

    Args:
        share: Share of the training text; see `Corpus.share`.
        shuffled: Share of its passages that are shuffled.
    """
    pieces: list[Any] = []
    for passage in corpus().share(share, shuffled):
        pieces += [[END_OF_TEXT_ID], np.frombuffer(passage.text.encode(), np.uint8)]
    return np.concatenate(pieces).astype(np.int64)


class NeoxRun(Run):
    """The state of a language model's training.

    AdamW; the learning rate rises linearly over the first 5 % of the steps, then falls to a tenth
    along a cosine or stays. The loss is in nats a byte, without a penalty.

    Args:
        shape: what is trained, and how.
        name: of the model, for messages.
    """

    gradient_norm = GRADIENT_NORM

    def __init__(self, shape: Training, name: str) -> None:
        self.shape = shape
        model = new_model(shape).train()
        layers = model.gpt_neox.layers
        if shape.tied:
            tie(layers)
        if shape.stochastic_depth:
            drop_neox_branches(layers, shape.stochastic_depth)
        self._tokens = torch.from_numpy(training_bytes(shape.text, shape.shuffled))
        self._draw = torch.Generator().manual_seed(shape.seed)
        falls = torch.Generator().manual_seed(another(shape.seed, 2))
        self._penalties: Penalties | None = None
        if shape.penalty.weight:
            blocks = Blocks("gpt_neox.layers", tuple(layers), shape.hidden_size)
            self._penalties = Penalties(shape.penalty, falls, blocks)
            self.advice = "a smaller learning_rate or penalty may help"
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=shape.learning_rate,
            betas=BETAS,
            weight_decay=shape.weight_decay,
            fused=True,
        )
        draws = {_DRAW: self._draw, _PENALTY: falls}
        super().__init__(name, model, optimizer, shape.steps, shape.seed, draws)

    def learning_rate(self, step: int) -> float:
        """Learning rate at an update, numbered from 1."""
        shape = self.shape
        return shape.learning_rate * learning_rate_factor(step, shape.steps, shape.schedule)

    def batch_loss(self, step: int) -> tuple[torch.Tensor, float]:
        """The loss of a batch of windows, plus the penalty at updates that have one."""
        window = torch.arange(self.shape.context + 1)
        last = len(self._tokens) - len(window)
        starts = torch.randint(last + 1, (self.shape.batch, 1), generator=self._draw)
        batch = self._tokens[starts + window]
        with self.random():
            logits = self.model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        value = loss.item()
        if self._penalties is not None and self._penalties.due(step):
            loss = loss + self._penalties(self.model, batch[:, :-1])
        return loss, value

    def save_model(self, directory: Path) -> None:
        """Write the model as an ordinary Hugging Face directory, with its provenance."""
        # Files of weights have no weight twice; a tied model is written as any other.
        state = written_out(self.model) if self.shape.tied else None
        self.model.save_pretrained(directory, state_dict=state)
        byte_tokenizer(self.shape.context).save_pretrained(directory)
        self.write_facts(
            directory,
            tokens=self.step * self.shape.batch * self.shape.context,
            corpus=corpus().source,
            training=self.shape.model_dump(),
        )


def learning_rate_factor(step: int, total: int, schedule: str = "cosine") -> float:
    """Share of the full learning rate at an update, numbered from 1, with its warm-up."""
    final = FINAL_LEARNING_RATE if schedule == "cosine" else 1.0
    return warmed_cosine(step, total, math.ceil(WARMUP * total), final)
