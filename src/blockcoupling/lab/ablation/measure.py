"""What a model loses when its blocks are left out, exchanged, replaced or merged.

Measured on the distribution over the next token, at every token of a text: the Kullback-Leibler
divergence KL(original ‖ changed) in nats a token, and the change of the text's own loss. A causal
model's earlier tokens know nothing of later ones, so that texts of different lengths go through the
blocks together, filled up on the right. The states of the model as it is are kept, and a change
starts at the first block that it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from blockcoupling.config.damage import TREATMENTS, Change, DamageSettings, changes
from blockcoupling.config.measurement import Settings
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.lab.ablation.course import (
    MOST_NUMBERS,
    MOST_TOGETHER,
    course,
    passes,
)
from blockcoupling.lab.ablation.exchange import placed, why_unlike
from blockcoupling.lab.ablation.store import join
from blockcoupling.measurement.instrument import Instrument, refuse_both_ways
from blockcoupling.measurement.measure import in_precision
from blockcoupling.store.schema import stamp
from blockcoupling.transformer.agreement import agree
from blockcoupling.transformer.blocks import Blocks
from blockcoupling.transformer.head import Passage, logits_after, record_passage
from blockcoupling.transformer.running import differentiable
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import TokenizedPrompt, texts_of, tokenize_prompts

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

PROMPT, HELDOUT = "prompt", "heldout"


@dataclass(frozen=True)
class Text:
    """A text that damage is measured on: a prompt, or a passage that was held out."""

    kind: str
    tokens: TokenizedPrompt

    @property
    def name(self) -> str:
        """Of its part: a passage may have a prompt's name."""
        return self.tokens.id if self.kind == PROMPT else f"{self.kind} {self.tokens.id}"


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
    """Leave blocks out, exchange, replace and merge them, and measure what that costs.

    Args:
        model: a causal language model with its head, weights in float32 or float64; others are
            measured on a float32 copy. Or a streamed model (`streaming.stream_model`).
        tokenizer: any callable text → input_ids, or → a mapping that holds them.
        prompts: the texts; a text alone is one prompt.
        heldout: texts that are told apart from prompts (`kind`), of which the first `window`
            tokens are taken.
        batch: texts that go through the blocks together; None: as many as fit, at most 8.
        dtype: measure on a copy of the model with weights of this type.
        progress: called once for every text and change.
        settings: fields of `config.damage.DamageSettings`: treatments, pairs, window.

    Returns:
        `kl` and `loss_change` (prompt, change), nats a token; `loss` (prompt) of the model as it
        is; along `change` the treatment, block and block_other (the same for one block alone), and
        the `reason` in words where a change cannot be made and its values are missing; along
        `prompt` kind and tokens. See docs/schema.md.

    Raises:
        UserError: for a model without a head, or prompts and settings that do not fit it.
        MeasurementError: where a prediction is not finite, or blocks cannot be called again.
    """
    asked = DamageSettings.of({"passages": 0, **settings})
    if asked.passages:
        raise UserError("passages: give the held-out texts themselves, as `heldout`")
    texts = [
        Text(kind, tokens)
        for kind, given in ((PROMPT, texts_of(prompts)), (HELDOUT, texts_of(heldout)))
        for tokens in tokenize_prompts(
            tokenizer, [(f"{kind[0]}{n}", text) for n, text in enumerate(given)], model
        )
    ]
    texts = [shortened(text, asked.window) if text.kind == HELDOUT else text for text in texts]
    if not isinstance(model, StreamedModel):
        model = in_precision(model, dtype)
    instrument = Instrument.of(model, Settings(), {})
    surgery = Surgery.of(instrument, [text.tokens for text in texts], asked)
    ordered = by_length(texts)
    together = batch or surgery.texts_together(ordered)
    parts = [
        part
        for start in range(0, len(ordered), together)
        for part in surgery.measure(ordered[start : start + together], progress)
    ]
    return join(parts, [(text.kind, text.tokens.id) for text in texts])


def shortened(text: Text, window: int) -> Text:
    """A text's first tokens."""
    tokens = text.tokens
    kept = TokenizedPrompt(tokens.id, tokens.input_ids[:, :window], tokens.token_text[:window])
    return Text(text.kind, kept)


def by_length(texts: Sequence[Text]) -> list[Text]:
    """Texts of like length beside each other, so that little is filled up."""
    return sorted(texts, key=lambda text: text.tokens.input_ids.shape[1])


@dataclass
class Surgery:
    """A model, and everything that is to be done to its blocks.

    Attributes:
        instrument: the model.
        blocks: its blocks.
        changes: what is done.
        reasons: why a change cannot be made, in words; the others are not among them.
    """

    instrument: Instrument
    blocks: Blocks
    changes: list[Change]
    reasons: Mapping[Change, str]

    @classmethod
    def of(
        cls,
        instrument: Instrument,
        texts: Sequence[TokenizedPrompt],
        settings: DamageSettings,
    ) -> Surgery:
        """Check everything that can be wrong before long work starts.

        Raises:
            UserError: listing what is wrong.
        """
        instrument.check(texts)
        refuse_both_ways(instrument, "blocks are changed, and the next token predicted,", "damage")
        if short := [text.id for text in texts if text.input_ids.shape[1] < 2]:
            raise UserError(
                f"{', '.join(map(repr, short[:5]))}: a text of one token says nothing about the "
                "loss; damage needs at least two tokens"
            )
        blocks = instrument.blocks(texts[0])
        if instrument.weights is not None:
            instrument.weights.fill_head(instrument.model)
        todo = changes(settings, len(blocks))
        exchanged = [change for change in todo if change.treatment not in _LEAVE_OUT]
        pairs = {tuple(sorted((c.block, c.block_other))) for c in exchanged}
        unlike = {(i, j): why_unlike(blocks, i - 1, j - 1) for i, j in pairs}
        reasons = {
            change: reason
            for change in exchanged
            if (reason := unlike[min(change[1:]), max(change[1:])]) is not None
        }
        return cls(instrument, blocks, todo, reasons)

    def texts_together(self, texts: Sequence[Text]) -> int:
        """How many texts go through the blocks together: their logits fit into memory."""
        config: Any = getattr(self.instrument.model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        words = getattr(text, "vocab_size", None) or 2**18
        longest = max(text.tokens.input_ids.shape[1] for text in texts)
        return max(1, min(MOST_TOGETHER, MOST_NUMBERS // (words * longest)))

    def passes(self) -> tuple[int, int]:
        """How often a text goes through a block and through the head, for all changes."""
        made = [change for change in self.changes if change not in self.reasons]
        return passes(made, len(self.blocks))

    def cost(self, texts: Sequence[Text]) -> str:
        """In words what measuring these texts takes, from how fast a pass is here and now.

        Raises:
            MeasurementError: the pass cannot be made.
        """
        tokens = sum(text.tokens.input_ids.shape[1] for text in texts)
        blocks, heads = self.passes()
        seconds = ""
        if self.instrument.weights is None:  # a pass of a streamed model is long work already
            work = blocks * self._weights_of_block() + heads * self._weights_of_head()
            seconds = f", about {work * tokens * 2 / _speed() / 60:,.0f} min"
        missing = f" ({len(self.reasons)} cannot be made)" if self.reasons else ""
        return (
            f"{len(self.changes):,} changes{missing} of {len(texts)} texts ({tokens:,} tokens): "
            f"{blocks * len(texts):,} passes through a block and {heads * len(texts):,} through "
            f"the head{seconds}"
        )

    def _weights_of_block(self) -> int:
        return sum(p.numel() for p in self.blocks.modules[0].parameters())

    def _weights_of_head(self) -> int:
        find = getattr(self.instrument.model, "get_output_embeddings", lambda: None)
        head = find()
        return sum(p.numel() for p in head.parameters()) if head is not None else 0

    def measure(
        self, texts: Sequence[Text], advance: Callable[[], object] = lambda: None
    ) -> list[xr.Dataset]:
        """Make every change on some texts together; one dataset for each text.

        Args:
            texts: some.
            advance: called once for every text and change.

        Raises:
            MeasurementError: naming texts and change.
        """
        instrument, names = self.instrument, ", ".join(repr(text.name) for text in texts)
        ids, real = _filled_up([text.tokens.input_ids[0] for text in texts])
        kl = np.full((len(self.changes), len(texts)), np.nan)
        loss = np.full((len(self.changes), len(texts)), np.nan)
        with differentiable(instrument.model), full_float32(), torch.no_grad():
            ids, real = ids.to(instrument.device), real.to(instrument.device)
            with self._entered():
                passage = record_passage(instrument.model, self.blocks, ids)
            as_it_is = _Predictions(self._logits(passage, passage.calls[-1].output), ids, real)
            self._verify(passage, as_it_is, names)
            for n, change in enumerate(self.changes):
                if change not in self.reasons:
                    logits = self._logits(passage, self._changed(passage, change))
                    kl[n], loss[n] = as_it_is.against(logits)
                    if not (np.isfinite(kl[n]).all() and np.isfinite(loss[n]).all()):
                        raise MeasurementError(
                            f"prompt {names}, {_in_words(change)}: the predictions are not finite"
                        )
                for _ in texts:
                    advance()
        own = as_it_is.loss.cpu().numpy()
        return [
            self._dataset(text, kl[:, n], loss[:, n] - own[n], float(own[n]))
            for n, text in enumerate(texts)
        ]

    def _entered(self) -> ExitStack:
        """Weights come in when a block is entered, where they are streamed."""
        around = ExitStack()
        if self.instrument.weights is not None:
            around.enter_context(self.instrument.weights.on_entry())
        return around

    def _logits(self, passage: Passage, hidden: Tensor) -> Tensor:
        return logits_after(self.instrument.model, self.blocks, passage, hidden)

    def _changed(self, passage: Passage, change: Change) -> Tensor:
        """The last state under a change."""
        way, modules = course(change, len(self.blocks)), self.blocks.modules
        hidden = passage.calls[way.start].input
        if (weights := self.instrument.weights) is None:
            with placed(self.blocks, way.sources):
                for place in way.places:
                    hidden = passage.calls[place](hidden)
            return hidden
        for place in way.places:
            sources = [modules[index] for index in way.sources.get(place, (place,))]
            weights.hold(modules[place], sources)
            hidden = passage.calls[place](hidden)
        return hidden

    def _verify(self, passage: Passage, as_it_is: _Predictions, names: str) -> None:
        """Hold our own way through blocks and head against the model's whole pass."""
        with self._entered():
            output = self.instrument.model(input_ids=passage.input_ids, use_cache=False)
        whole = torch.log_softmax(output.logits.float(), -1)
        hidden = passage.calls[0].input
        for call in passage.calls:
            if self.instrument.weights is not None:
                self.instrument.weights.hold(call.block)
            hidden = call(hidden)
        again = torch.log_softmax(self._logits(passage, hidden).float(), -1)
        if not bool(torch.isfinite(whole).all()):
            raise MeasurementError(f"prompt {names}: the model's predictions are not finite")
        for found in (as_it_is.log_p, again):
            if not agree(found.flatten(), whole.flatten()):
                raise MeasurementError(
                    f"prompt {names}: blocks called one after the other do not give what the whole "
                    "model does, so that what a change does cannot be told"
                )

    def _dataset(self, text: Text, kl: np.ndarray, change: np.ndarray, loss: float) -> xr.Dataset:
        def words(values: list[str]) -> np.ndarray:
            return np.array(values, dtype=object)

        made = self.changes
        tokens = text.tokens.input_ids.shape[1]
        return xr.Dataset(
            {
                "kl": (("prompt", "change"), kl[None]),
                "loss_change": (("prompt", "change"), change[None]),
                "loss": ("prompt", np.array([loss])),
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
            {
                **stamp(),
                "torch_version": version("torch"),
                "transformers_version": version("transformers"),
                **{k: v for k, v in self.instrument.identity.items() if v is not None},
            },
        )


_LEAVE_OUT = ("skip", "exit")


def _in_words(change: Change) -> str:
    other = "" if change.block == change.block_other else f" and {change.block_other}"
    done = TREATMENTS[change.treatment].done
    return f"{change.treatment} of block {change.block}{other} ({done})"


class _Predictions:
    """What a model predicts at every token of some texts, and the loss of their own tokens.

    Attributes:
        log_p: logarithms of probabilities, (text, token, word).
        loss: mean over a text's tokens from the second on, (text).
    """

    def __init__(
        self,
        logits: Float[Tensor, "text token word"],
        ids: Int[Tensor, "text token"],
        real: Bool[Tensor, "text token"],
    ) -> None:
        self._ids, self._real = ids, real
        self.log_p = torch.log_softmax(_plain(logits), -1)
        self.loss = self._loss(self.log_p)

    def against(self, logits: Float[Tensor, "text token word"]) -> tuple[np.ndarray, np.ndarray]:
        """KL(these ‖ those), mean over a text's tokens, and the loss of those; nats a token."""
        log_q = torch.log_softmax(_plain(logits), -1)
        loss = self._loss(log_q)
        each = (self.log_p.exp() * log_q.neg_().add_(self.log_p)).sum(-1)
        kl = (each * self._real).sum(1).double() / self._real.sum(1)
        return kl.cpu().numpy(), loss.cpu().numpy()

    def _loss(self, log_p: Tensor) -> Tensor:
        own = log_p[:, :-1].gather(-1, self._ids[:, 1:, None])[..., 0]
        counted = self._real[:, 1:]
        return -(own * counted).sum(1).double() / counted.sum(1)


def _plain(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _filled_up(texts: Sequence[Int[Tensor, " token"]]) -> tuple[Tensor, Tensor]:
    """Texts side by side, each filled up with its last token; which tokens are its own."""
    longest = max(len(ids) for ids in texts)
    filled = [torch.cat([ids, ids[-1:].expand(longest - len(ids))]) for ids in texts]
    lengths = torch.tensor([len(ids) for ids in texts])
    return torch.stack(filled), torch.arange(longest) < lengths[:, None]


def _speed() -> float:
    """Floating-point operations a second, of products here and now."""
    import time

    a = torch.ones(768, 768)
    a @ a
    start = time.perf_counter()
    a @ a
    return 2 * 768**3 / (time.perf_counter() - start)
