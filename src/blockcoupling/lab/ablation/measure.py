"""What a model loses when its blocks are ablated, swapped, replaced or merged, or a state is moved.

Measured on the distribution over the next token, at every token of a text: the Kullback-Leibler
divergence KL(original ‖ changed) in nats a token, and the change of the model's loss on the text. A
causal model's earlier tokens know nothing of later ones, so texts of different lengths go through
the blocks together, padded on the right. The states of the unchanged model are kept, and a change
starts at the first block that it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from blockcoupling.config.damage import (
    DISPLACEMENTS,
    TREATMENTS,
    Change,
    DamageSettings,
    changes,
)
from blockcoupling.config.measurement import Settings
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.lab.ablation.course import MOST_NUMBERS, MOST_TOGETHER, Course, course, passes
from blockcoupling.lab.ablation.displacement import Displacement
from blockcoupling.lab.ablation.exchange import placed, why_unlike
from blockcoupling.lab.ablation.predictions import Predictions, padded
from blockcoupling.measurement.dataset import versions
from blockcoupling.measurement.measure import in_precision
from blockcoupling.measurement.prepare import Prepared, prepare_prompts
from blockcoupling.measurement.token_cost import seconds_of
from blockcoupling.store.damage import DAMAGE
from blockcoupling.transformer.agreement import agree
from blockcoupling.transformer.head import Passage, logits_after, record_passage
from blockcoupling.transformer.running import differentiable
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import TokenizedPrompt, texts_of, tokenize_prompts

PROMPT, HELDOUT = "prompt", "heldout"
ANSWER, CHOICE = "answer", "choice"
"""A question with its right answer, and with another of its choices."""


@dataclass(frozen=True)
class Text:
    """A text that ablation damage is measured on.

    Attributes:
        kind: a prompt, a held-out passage, or a question with one of its choices.
        tokens: of all of it.
        start: index of the first token of the choice; 0 for prompts and passages.
        number: of the choice.
    """

    kind: str
    tokens: TokenizedPrompt
    start: int = 0
    number: int = 0

    @property
    def name(self) -> str:
        """Name of its part of the job; a passage may have the id of a prompt."""
        if self.kind == PROMPT:
            return self.tokens.id
        return f"{self.kind} {self.tokens.id}" + (f" {self.number}" if self.start else "")


def damage(
    model: nn.Module | StreamedModel,
    tokenizer: Callable[[str], Any],
    prompts: str | Iterable[str],
    *,
    heldout: str | Iterable[str] = (),
    batch: int | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[], object] = lambda: None,
    **settings: Any,
) -> xr.Dataset:
    """Ablate blocks, swap, replace and merge them, and measure what that costs.

    Args:
        model: a causal language model with its head, and weights in float32 or float64; others
            are measured on a float32 copy. Or a streamed model (`streaming.stream_model`).
        tokenizer: any callable text → input_ids, or → a mapping that holds them.
        prompts: the texts; a single string is one prompt.
        heldout: texts of another `kind`; their first `window` tokens are taken.
        batch: texts that go through the blocks together; None: 8, or fewer by the number of their
            logits.
        dtype: measure on a copy of the model with weights of this type.
        progress: called once for every text and change.
        settings: fields of `config.damage.DamageSettings`: treatments, pairs, window.

    Returns:
        `kl` and `loss_change` (prompt, change), nats a token; `loss` (prompt) of the unchanged
        model; along `change` the treatment, block and block_other (the same for a single block),
        and the `reason` why a change cannot be made, where its values are missing; along `prompt`
        kind and tokens. See docs/schema.md.

    Raises:
        UserError: the model has no head, or prompts and settings do not fit it.
        MeasurementError: a prediction is not finite, or blocks cannot be called again.
    """
    asked = DamageSettings.of({"passages": 0, **settings})
    if asked.passages:
        raise UserError("passages: give the held-out texts themselves, as `heldout`")
    if asked.answers:
        raise UserError("answers: questions with choices are datasets of a study")
    texts = [
        Text(kind, tokens)
        for kind, given in ((PROMPT, texts_of(prompts)), (HELDOUT, texts_of(heldout)))
        for tokens in tokenize_prompts(
            tokenizer, [(f"{kind[0]}{n}", text) for n, text in enumerate(given)], model
        )
    ]
    texts = [shortened(text, asked.window) if text.kind == HELDOUT else text for text in texts]
    original = None
    if not isinstance(model, StreamedModel):
        exact = in_precision(model, dtype)
        original, model = None if exact is model else model, exact
    ablation = Ablation.of(model, texts, asked, original)
    ordered = by_length(texts)
    size = batch or ablation.default_batch(ordered)
    parts = [
        part
        for start in range(0, len(ordered), size)
        for part in ablation.measure(ordered[start : start + size], progress)
    ]
    measured = {text.name: part for text, part in zip(ordered, parts, strict=True)}
    return DAMAGE.combine([measured[text.name] for text in texts])


def shortened(text: Text, window: int) -> Text:
    """A text's first tokens."""
    tokens = text.tokens
    kept = TokenizedPrompt(tokens.id, tokens.input_ids[:, :window], tokens.token_text[:window])
    return Text(text.kind, kept)


def by_length(texts: Sequence[Text]) -> list[Text]:
    """Texts sorted by length, so that little is padded."""
    return sorted(texts, key=lambda text: text.tokens.input_ids.shape[1])


@dataclass(frozen=True)
class Ablation:
    """A model, and all changes that are to be made to its blocks.

    Attributes:
        prepared: the model.
        changes: what is done.
        reasons: why a change cannot be made; the others are not among them.
        push: length of a displacement, as a share of the length of the state.
    """

    prepared: Prepared
    changes: Sequence[Change]
    reasons: Mapping[Change, str]
    push: float

    @classmethod
    def of(
        cls,
        model: nn.Module | StreamedModel,
        texts: Sequence[Text],
        settings: DamageSettings,
        original: nn.Module | None = None,
    ) -> Ablation:
        """Prepare a model, and check everything that can be wrong before long work starts.

        Args:
            model: the model.
            texts: what it is measured on.
            settings: what to change.
            original: the model that it is a copy of in another precision, if any.

        Raises:
            UserError: listing what is wrong.
        """
        first = Settings(k=1, vectors=True, readout=0)  # the directions of displacements
        prepared, _ = prepare_prompts(model, [text.tokens for text in texts], first, original)
        prepared.refuse_bidirectional("blocks are ablated, and the next token predicted,", "damage")
        if short := [text.tokens.id for text in texts if text.tokens.length < 2]:
            raise UserError(
                f"{', '.join(map(repr, short[:5]))}: a text of one token says nothing about the "
                "loss; ablation needs at least two tokens"
            )
        if prepared.weights is not None:
            prepared.weights.fill_head(prepared.model)
        blocks = prepared.blocks
        todo = changes(settings, len(blocks))
        exchanged = [change for change in todo if change.treatment not in _OWN_WEIGHTS]
        pairs = {tuple(sorted((c.block, c.block_other))) for c in exchanged}
        unlike = {(i, j): why_unlike(blocks, i - 1, j - 1) for i, j in pairs}
        reasons = {
            change: reason
            for change in exchanged
            if (reason := unlike[min(change[1:]), max(change[1:])]) is not None
        }
        return cls(prepared, todo, reasons, settings.push)

    def default_batch(self, texts: Sequence[Text]) -> int:
        """Texts that go through the blocks together, by the number of their logits."""
        config: Any = getattr(self.prepared.model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        words = getattr(text, "vocab_size", None) or 2**18
        longest = max(text.tokens.length for text in texts)
        return max(1, min(MOST_TOGETHER, MOST_NUMBERS // (words * longest)))

    def passes(self) -> tuple[int, int]:
        """How often a text goes through a block and through the head, for all changes."""
        made = [change for change in self.changes if change not in self.reasons]
        return passes(made, len(self.prepared.blocks))

    def cost(self, texts: Sequence[Text]) -> str:
        """A sentence about what measuring these texts takes, from the speed of a product now.

        Raises:
            MeasurementError: the pass cannot be made.
        """
        tokens = sum(text.tokens.input_ids.shape[1] for text in texts)
        blocks, heads = self.passes()
        seconds = ""
        if self.prepared.weights is None:  # a pass of a streamed model is long work already
            block = sum(p.numel() for p in self.prepared.blocks.modules[0].parameters())
            work = blocks * block + heads * self._weights_of_head()
            seconds = f", about {seconds_of(work * tokens * 2) / 60:,.0f} min"
        missing = f" ({len(self.reasons)} cannot be made)" if self.reasons else ""
        return (
            f"{len(self.changes):,} changes{missing} of {len(texts)} texts ({tokens:,} tokens): "
            f"{blocks * len(texts):,} passes through a block and {heads * len(texts):,} through "
            f"the head{seconds}"
        )

    def _weights_of_head(self) -> int:
        head = getattr(self.prepared.model, "get_output_embeddings", lambda: None)()
        return sum(p.numel() for p in head.parameters()) if head is not None else 0

    def measure(
        self, texts: Sequence[Text], advance: Callable[[], object] = lambda: None
    ) -> list[xr.Dataset]:
        """Make every change on a batch of texts.

        Args:
            texts: the batch.
            advance: called once for every text and change.

        Returns:
            One dataset for each text.

        Raises:
            MeasurementError: naming texts and change.
        """
        prepared, names = self.prepared, ", ".join(repr(text.name) for text in texts)
        tokens = [text.tokens for text in texts]
        ids, real = padded([one.input_ids[0] for one in tokens])
        kl = np.full((len(self.changes), len(texts)), np.nan)
        loss, step = np.full_like(kl, np.nan), np.full_like(kl, np.nan)
        singular = any(change.treatment == "displace" for change in self.changes)
        directions = Displacement.of(prepared, tokens, self.push, singular)
        with differentiable(prepared.model), full_float32(), torch.no_grad():
            ids, real = ids.to(prepared.device), real.to(prepared.device)
            with self._entered():
                passage = record_passage(prepared.model, prepared.blocks, ids)
            logits = self._logits(passage, passage.calls[-1].output)
            as_it_is = Predictions(logits, ids, real, [text.start for text in texts])
            self._verify(passage, as_it_is, names)
            for n, change in enumerate(self.changes):
                if change not in self.reasons:
                    moves = change.treatment in DISPLACEMENTS
                    way = course(change, len(prepared.blocks))
                    hidden = passage.calls[way.start].input
                    if moves:
                        hidden, step[n] = directions.moved(hidden, change)
                    logits = self._logits(passage, self._changed(passage, way, hidden))
                    kl[n], loss[n] = as_it_is.against(logits, at_end=moves)
                    if not (np.isfinite(kl[n]).all() and np.isfinite(loss[n]).all()):
                        raise MeasurementError(
                            f"prompt {names}, {_described(change)}: the predictions are not finite"
                        )
                for _ in texts:
                    advance()
        own = as_it_is.loss.cpu().numpy()
        return [
            self._dataset(text, kl[:, n], loss[:, n] - own[n], float(own[n]), step[:, n])
            for n, text in enumerate(texts)
        ]

    def _entered(self) -> ExitStack:
        """A context in which streamed weights are read when a block is entered."""
        around = ExitStack()
        if self.prepared.weights is not None:
            around.enter_context(self.prepared.weights.on_entry())
        return around

    def _logits(self, passage: Passage, hidden: Tensor) -> Tensor:
        return logits_after(self.prepared.model, self.prepared.blocks, passage, hidden)

    def _changed(self, passage: Passage, way: Course, hidden: Tensor) -> Tensor:
        """The last hidden state under a change, from the input of its first block."""
        modules = self.prepared.blocks.modules
        if (weights := self.prepared.weights) is None:
            with placed(self.prepared.blocks, way.sources):
                for place in way.places:
                    hidden = passage.calls[place](hidden)
            return hidden
        for place in way.places:
            sources = [modules[index] for index in way.sources.get(place, (place,))]
            weights.hold(modules[place], sources)
            hidden = passage.calls[place](hidden)
        return hidden

    def _verify(self, passage: Passage, as_it_is: Predictions, names: str) -> None:
        """Compare blocks and head called one by one with the model's full forward pass.

        Raises:
            MeasurementError: they differ, or a prediction is not finite.
        """
        with self._entered():
            output = self.prepared.model(input_ids=passage.input_ids, use_cache=False)
        whole = torch.log_softmax(output.logits.float(), -1)
        hidden = passage.calls[0].input
        for call in passage.calls:
            if self.prepared.weights is not None:
                self.prepared.weights.hold(call.block)
            hidden = call(hidden)
        again = torch.log_softmax(self._logits(passage, hidden).float(), -1)
        if not bool(torch.isfinite(whole).all()):
            raise MeasurementError(f"prompt {names}: the model's predictions are not finite")
        for found in (as_it_is.log_p, again):
            if not agree(found.flatten(), whole.flatten()):
                raise MeasurementError(
                    f"prompt {names}: blocks called one by one do not give what the full forward "
                    "pass gives, so the effect of a change cannot be measured"
                )

    def _dataset(
        self, text: Text, kl: np.ndarray, change: np.ndarray, loss: float, step: np.ndarray
    ) -> xr.Dataset:
        def words(values: list[str]) -> np.ndarray:
            return np.array(values, dtype=object)

        made = self.changes
        tokens = text.tokens.input_ids.shape[1]
        moved = {"step": (("prompt", "change"), step[None])} if np.isfinite(step).any() else {}
        return xr.Dataset(
            {
                "kl": (("prompt", "change"), kl[None]),
                "loss_change": (("prompt", "change"), change[None]),
                "loss": ("prompt", np.array([loss])),
                **moved,
            },
            {
                "prompt": words([text.tokens.id]),
                "kind": ("prompt", words([text.kind])),
                "tokens": ("prompt", np.array([tokens])),
                "treatment": ("change", words([c.treatment for c in made])),
                "block": ("change", np.array([c.block for c in made])),
                "block_other": ("change", np.array([c.block_other for c in made])),
                "reason": ("change", words([self.reasons.get(c, "") for c in made])),
            },
            versions(),
        )


_OWN_WEIGHTS = ("skip", "exit", *DISPLACEMENTS)


def _described(change: Change) -> str:
    other = "" if change.block == change.block_other else f" and {change.block_other}"
    done = TREATMENTS[change.treatment].done
    return f"{change.treatment} of block {change.block}{other} ({done})"
