"""A model set up for measuring: a batch of prompts in, one dataset of the schema for each out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import xarray as xr
from torch import nn

from blockcoupling.config.choices import Matmul, Method
from blockcoupling.config.measurement import Settings
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.block_operators import SameToken, between_tokens
from blockcoupling.jacobian.decompose import decompose
from blockcoupling.jacobian.degenerate import AtPrompt
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.jacobian.mean import MeanOperator
from blockcoupling.jacobian.operator import Operator, StackedOperator
from blockcoupling.measurement.checking import unfit
from blockcoupling.measurement.dataset import attributes_of, dataset_of
from blockcoupling.measurement.idle import warn_of_idle
from blockcoupling.measurement.memory import (
    bytes_per_prompt,
    free_bytes,
    products_kept,
    prompts_at_once,
)
from blockcoupling.measurement.points import Point, Prompt, RecordedPrompt, Recorder
from blockcoupling.transformer.blocks import Blocks, find_blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.causality import is_causal
from blockcoupling.transformer.final_norm import find_final_norm
from blockcoupling.transformer.images import Picture
from blockcoupling.transformer.prompt_loss import NoPredictions, prompt_losses
from blockcoupling.transformer.running import Given, differentiable, refuse_absent_weights
from blockcoupling.transformer.streaming import BlockWeights, StreamedModel, in_lockstep
from blockcoupling.transformer.tokens import TokenizedPrompt, token_pairs

logger = logging.getLogger(__name__)

# How many patches go through a block together on their way to a mean.
PATCHES_AT_ONCE = 16


@dataclass
class Instrument:
    """A model set up for measuring; keeps what it has learned about the model between batches.

    Attributes:
        model: weights in float32 or float64.
        settings: what to measure.
        identity: attributes for the store that only the caller knows (model_id, revision, …).
        methods: method per block once chosen; the first batch chooses, so that every later batch,
            and a resumed job that is handed them, does the same arithmetic.
        weights: brings blocks into memory, for a streamed model.
    """

    model: nn.Module
    settings: Settings
    identity: dict[str, Any] = field(default_factory=dict)
    methods: list[str] | None = None
    weights: BlockWeights | None = None
    _blocks: Blocks | None = None
    _causal: bool | None = None
    _final_norm: nn.Module | None = None
    _records: Recorder | None = None

    @classmethod
    def of(
        cls, model: nn.Module | StreamedModel, settings: Settings, identity: dict[str, Any]
    ) -> Instrument:
        """Set up a model that is in memory, or one that is streamed.

        Raises:
            UserError: if its weights are neither, or cannot be differentiated with.
        """
        if isinstance(model, StreamedModel):
            return cls(model.model, settings, identity, weights=model.weights)
        refuse_absent_weights(model)
        return cls(model, settings, identity)

    @property
    def device(self) -> torch.device:
        """Where the model is (of a streamed one, what lies outside its blocks)."""
        return next(p.device for p in self.model.parameters() if not p.is_meta)

    def blocks(self, example: Prompt | None) -> Blocks:
        """The model's blocks, found on the first call by passing a few of the example's tokens."""
        given = None if example is None or not example.length else example.beginning
        return self.blocks_by(torch.zeros(1, 1, dtype=torch.long) if given is None else given)

    def blocks_by(self, given: Given) -> Blocks:
        """The model's blocks, found on the first call by passing token ids or an image.

        Raises:
            UserError: if there is no one stack of blocks, or the model cannot be run so.
        """
        if self._blocks is None:
            with ExitStack() as around:
                around.enter_context(differentiable(self.model))
                if self.weights is not None:
                    around.enter_context(self.weights.on_entry())
                given = given.to(self.device).clone()  # may come from inference mode
                blocks = find_blocks(self.model, given, self.settings.stage)
                self._causal = is_causal(self.model, blocks, given)
                if self.settings.final_norm:
                    self._final_norm = find_final_norm(self.model, blocks, given)
                self._blocks = blocks
        return self._blocks

    def keeps_marks(self, prompts: Sequence[TokenizedPrompt]) -> bool:
        """Whether prompts are to keep the marks around them: in a model that looks both ways.

        False where the model cannot be run on them; `check` says why.
        """
        fit = [prompt for prompt in prompts if unfit(self.model, prompt) is None]
        try:
            self.blocks(fit[0] if fit else None)
        except UserError:
            return False
        return not self.causal

    @property
    def causal(self) -> bool:
        """Whether earlier tokens alone act on a token; known once the blocks have been found."""
        assert self._causal is not None, "the blocks have not been found"
        return self._causal

    def check(self, prompts: Sequence[Prompt], known: Sequence[str] = ()) -> int:
        """Check everything that can be wrong before long work starts; return K_max.

        Args:
            prompts: all that are to be measured.
            known: what is known to be wrong already, told with the rest.

        Raises:
            UserError: listing all that is wrong.
        """
        if not prompts:
            raise UserError("there is no prompt to measure")
        problems = [unfit(self.model, prompt) for prompt in prompts]
        fit = [prompt for prompt, why in zip(prompts, problems, strict=True) if why is None]
        about_model = []
        try:
            d = self.blocks(fit[0] if fit else None).dimension
            if self.settings.k_for(d) > d:
                about_model.append(
                    f"k = {self.settings.k}: this model's residual stream is d = {d} wide, so a "
                    f"Jacobian has 1 … {d} singular triples. Choose k from 1 to {d}."
                )
        except UserError as error:
            about_model.append(str(error))
        problems = [
            why or self._no_tokens(prompt) for prompt, why in zip(prompts, problems, strict=True)
        ]
        about_prompts = [
            f"prompt {prompt.id!r} {why}"
            for prompt, why in zip(prompts, problems, strict=True)
            if why
        ]
        if wrong := [*known, *about_prompts, *about_model]:
            raise UserError("\n".join(wrong))
        return self.settings.k_for(d)

    def _no_tokens(self, prompt: Prompt) -> str | None:
        """Why the tokens asked for cannot be measured in a prompt; None if they can."""
        causal = self._causal is not False  # of a model that is refused it is not known
        try:
            token_pairs(self.settings.tokens, prompt.length, prompt.places, causal)
        except UserError as error:
            return f"cannot be measured: {error}"
        return None

    def prompts_at_once(self, prompts: Sequence[Prompt], k: int) -> int:
        """How many of these prompts to measure together, by what memory is free now."""
        blocks = self.blocks(prompts[0])
        longest = max(p.length for p in prompts)
        pairs = max(
            len(token_pairs(self.settings.tokens, p.length, p.places, self.causal)) for p in prompts
        )
        kept = products_kept(self.settings)
        each = bytes_per_prompt(blocks.dimension, len(blocks), k, longest, pairs, kept)
        return prompts_at_once(each, free_bytes(str(self.device)))

    def measure(self, prompts: Sequence[Prompt]) -> list[xr.Dataset]:
        """Measure a batch of prompts together; one dataset of the schema for each.

        Raises:
            MeasurementError: naming block and prompt.
        """
        blocks = self.blocks(prompts[0])
        k = self.settings.k_for(blocks.dimension)
        with differentiable(self.model), full_float32():
            recorder = self._recorder(blocks)
            recorder.expect(prompts)
            runs = [partial(recorder.record, p) for p in prompts]
            if self.weights is None:
                recorded = [run() for run in runs]
            else:
                recorded = in_lockstep(self.weights, blocks.modules, runs)
            losses = self._prompt_losses(recorded)
            points = [point for one in recorded for point in one.points]
            # Decoded tokens go through a block together, the others after them, one by one.
            points.sort(key=lambda point: not point.decoded)

            decoded = [point for point in points if point.decoded]
            same_token = SameToken(partial(_calls_of, decoded), self.settings.matmul)
            others = [self._other(point) for point in points[len(decoded) :]]

            def operators(block: int) -> Operator:
                if self.weights is not None:
                    self.weights.hold(blocks.modules[block])
                members = [same_token(block)] if decoded else []
                members += [other(block) for other in others]
                return members[0] if len(members) == 1 else StackedOperator(members)

            try:
                found = decompose(
                    operators,
                    len(blocks),
                    k,
                    method=self._method(),
                    tolerance=self.settings.tolerance,
                    swapped=self.settings.swapped,
                    overlaps=self.settings.overlaps,
                    full=self.settings.full,
                    seed=self.settings.seed,
                    # One block's weights are held at a time; TF32 is a setting of the process.
                    workers=None if self.weights is None and self._plain else 1,
                )
            except AtPrompt as error:
                name = points[error.prompt].prompt
                raise MeasurementError(f"prompt {name!r}, {error}") from error
            except MeasurementError as error:
                names = ", ".join(repr(p.id) for p in prompts)
                raise MeasurementError(f"prompt {names}: {error}") from error
        self.methods = self.methods or found.methods
        warn_of_idle(
            (points[row].place, block + 1)
            for row, block in (found.S[..., 0] == 0).nonzero().tolist()
        )
        return [
            dataset_of(
                one,
                loss,
                found,
                [points.index(point) for point in one.points],
                self.settings.vectors,
                attributes_of(self.model, self.settings, self._identity(one.prompt)),
            )
            for one, loss in zip(recorded, losses, strict=True)
        ]

    def _prompt_losses(self, recorded: Sequence[RecordedPrompt]) -> list[float]:
        """The model's own loss on each prompt; NaN where it does not predict the next token."""
        none = [float("nan")] * len(recorded)
        prompts = [one.prompt.given for one in recorded]
        if not self.causal or any(given.is_floating_point() for given in prompts):
            return none
        try:
            with ExitStack() as around:
                if self.weights is not None:
                    around.enter_context(self.weights.head_in_slices(self.model))
                blocks = self.blocks(recorded[0].prompt)
                return prompt_losses(
                    self.model, blocks, prompts, [one.returned for one in recorded]
                )
        except UserError as error:
            level = logging.INFO if isinstance(error, NoPredictions) else logging.WARNING
            logger.log(level, "there is no loss on the prompts: %s", error)
            return none

    def _other(self, point: Point) -> Callable[[int], Operator]:
        """Makes a block's operator at a point that more than one token's own call leads to."""
        matmul = self.settings.matmul
        if not point.patches:
            return lambda block: _full_sequence(point, block, matmul)
        alone = [patch for patch in point.patches if patch.decoded]
        makers: list[Callable[[int], Operator]] = []
        for start in range(0, len(alone), PATCHES_AT_ONCE):
            some = alone[start : start + PATCHES_AT_ONCE]
            makers.append(SameToken(partial(_calls_of, some), matmul))
        makers += [self._other(patch) for patch in point.patches if not patch.decoded]
        return lambda block: MeanOperator([partial(make, block) for make in makers])

    def _identity(self, prompt: Prompt) -> dict[str, Any]:
        """Attributes that say what was measured of which model."""
        modality = "image" if isinstance(prompt, Picture) else "text"
        return {"modality": modality, "causal": self.causal} | self.identity

    def _recorder(self, blocks: Blocks) -> Recorder:
        if self._records is None:
            self._records = Recorder(
                self.model,
                blocks,
                self.settings.tokens,
                self.settings.context,
                self._final_norm,
                self.device,
                self.causal,
            )
        return self._records

    @property
    def _plain(self) -> bool:
        return self.settings.matmul == "float32"

    def _method(self) -> Method | Sequence[str]:
        """What the user asked for, or, where the choice is ours, what was chosen before."""
        if self.settings.method == "auto" and self.methods is not None:
            return self.methods
        return self.settings.method


def refuse_both_ways(instrument: Instrument, what: str, section: str) -> None:
    """Refuse a model whose tokens act on those before them, once its blocks have been found.

    Raises:
        UserError: saying so.
    """
    if not instrument.causal:
        raise UserError(
            f"{type(instrument.model).__name__} looks both ways, and {what} in models that look "
            f"back only. Leave `{section}` out for it."
        )


def _calls_of(points: Sequence[Point], block: int) -> list[BlockCall]:
    return [point.calls[block] for point in points]


def _full_sequence(point: Point, block: int, matmul: Matmul) -> Operator:
    call = point.calls[block]
    operator = between_tokens(call, point.token_in, point.token_out, matmul)
    operator.attention = "full-sequence"
    return operator
