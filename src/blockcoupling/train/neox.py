"""Training a small GPT-NeoX from scratch, from step to step."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import blockcoupling
from blockcoupling.config.models import Training
from blockcoupling.errors import MeasurementError
from blockcoupling.progress import Progress
from blockcoupling.sources.corpus import corpus
from blockcoupling.train.penalty import Penalties
from blockcoupling.train.schedule import warmed_cosine
from blockcoupling.train.states import MODEL, OPTIMIZER, State, digest
from blockcoupling.train.stochastic_depth import drop_neox_branches
from blockcoupling.train.tied import tie, written_out
from blockcoupling.train.tokenizer import END_OF_TEXT_ID, VOCABULARY, byte_tokenizer
from blockcoupling.transformer.blocks import Blocks

WARMUP = 0.05
FINAL_LEARNING_RATE = 0.1
BETAS = (0.9, 0.95)
GRADIENT_NORM = 1.0

_DRAW = "draw"  # the state of the generator that places the windows of text
_NOISE = "noise"  # and of the one that says what is dropped
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


def training_bytes(share: float = 1.0) -> np.ndarray:
    """Training passages as token ids, each after an end-of-text mark; shape (bytes,), int64.

    Args:
        share: Of the training text; see `Corpus.share`.
    """
    pieces: list[Any] = []
    for passage in corpus().share(share):
        pieces += [[END_OF_TEXT_ID], np.frombuffer(passage.text.encode(), np.uint8)]
    return np.concatenate(pieces).astype(np.int64)


class Run:
    """A training as far as it has come.

    AdamW; the learning rate rises linearly over the first 5 % of the steps and falls to a tenth
    along a cosine.

    Args:
        shape: what is trained, and how.
        name: of the model, for messages.

    Attributes:
        model: as it is after `step` updates.
        loss: of the last batch, in nats a byte, without a penalty; None before the first.
    """

    def __init__(self, shape: Training, name: str) -> None:
        self.shape, self.name = shape, name
        self.step = 0
        self.loss: float | None = None
        self.model = new_model(shape).train()
        layers = self.model.gpt_neox.layers
        if shape.tied:
            tie(layers)
        if shape.stochastic_depth:
            drop_neox_branches(layers, shape.stochastic_depth)
        self._tokens = torch.from_numpy(training_bytes(shape.text))
        self._draw = torch.Generator().manual_seed(shape.seed)
        self._noise = torch.Generator().manual_seed(_another(shape.seed, 1)).get_state()
        self._falls = torch.Generator().manual_seed(_another(shape.seed, 2))
        self._penalties: Penalties | None = None
        if shape.penalty.weight:
            blocks = Blocks("gpt_neox.layers", tuple(layers), shape.hidden_size)
            self._penalties = Penalties(shape.penalty, self._falls, blocks)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=shape.learning_rate,
            betas=BETAS,
            weight_decay=shape.weight_decay,
            fused=True,
        )

    def update(self) -> None:
        """One more batch.

        Raises:
            MeasurementError: the loss is not finite any more.
        """
        step = self.step + 1
        factor = learning_rate_factor(step, self.shape.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self.shape.learning_rate * factor
        window = torch.arange(self.shape.context + 1)
        last = len(self._tokens) - len(window)
        starts = torch.randint(last + 1, (self.shape.batch, 1), generator=self._draw)
        batch = self._tokens[starts + window]
        with self._random():
            logits = self.model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        value = loss.item()
        if self._penalties is not None and self._penalties.due(step):
            loss = loss + self._penalties(self.model, batch[:, :-1])
        if not math.isfinite(loss.item()):
            advice = "learning_rate" if self._penalties is None else "learning_rate or penalty"
            raise MeasurementError(
                f"training {self.name}: the loss is {loss.item()} at step {step}; a smaller "
                f"{advice} may help"
            )
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        self.step, self.loss = step, value

    @contextmanager
    def _random(self) -> Iterator[None]:
        """Let the model draw random numbers of its own, which go on from step to step."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._noise)
            yield
            self._noise = torch.get_rng_state()

    def until(self, step: int) -> Iterator[None]:
        """Make the updates up to a step, pausing after each."""
        work = Progress(self.shape.steps, f"training {self.name}", "step", done=self.step)
        with work as progress:
            while self.step < step:
                self.update()
                progress.advance(f"loss {self.loss:.3f}")
                yield

    def save(self, directory: Path) -> None:
        """Write all that `load` needs into a directory; see `States`."""
        self.save_model(directory / MODEL)
        tensors = {_DRAW: self._draw.get_state(), _NOISE: self._noise}
        tensors[_PENALTY] = self._falls.get_state()
        for parameter, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{parameter}.{name}": value for name, value in moments.items()}
        save_file(tensors, directory / OPTIMIZER)

    def load(self, state: State) -> None:
        """Go on from a state of the same training."""
        # Copies, into memory that torch has laid out itself: what the bits of products depend on.
        saved = GPTNeoXForCausalLM.from_pretrained(state.path / MODEL, use_safetensors=True)
        self.model.load_state_dict(saved.state_dict())
        tensors = {name: t.clone() for name, t in load_file(state.path / OPTIMIZER).items()}
        self._draw.set_state(tensors.pop(_DRAW))
        self._noise = tensors.pop(_NOISE)
        self._falls.set_state(tensors.pop(_PENALTY))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            parameter, _, name = key.partition(".")
            moments.setdefault(int(parameter), {})[name] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.loss = state.step, state.loss

    def save_model(self, directory: Path) -> None:
        """Write the model as an ordinary Hugging Face directory, with how it was made."""
        # Files of weights have no weight twice; a tied model is written as any other.
        state = written_out(self.model) if self.shape.tied else None
        self.model.save_pretrained(directory, state_dict=state)
        byte_tokenizer(self.shape.context).save_pretrained(directory)
        facts = {
            "step": self.step,
            "tokens": self.step * self.shape.batch * self.shape.context,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "training_loss": self.loss,
            "corpus": corpus().source,
            "training": self.shape.model_dump(),
            "blockcoupling": blockcoupling.__version__,
            "torch": torch.__version__,
            # The one small file that differs wherever the weights do.
            "weights_sha256": digest(directory / "model.safetensors"),
        }
        (directory / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def _another(seed: int, number: int) -> int:
    """One of several seeds that have nothing to do with the one that places the windows."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def learning_rate_factor(step: int, total: int) -> float:
    """Share of the full learning rate at an update, numbered from 1: warm-up, then a cosine."""
    return warmed_cosine(step, total, math.ceil(WARMUP * total), FINAL_LEARNING_RATE)
