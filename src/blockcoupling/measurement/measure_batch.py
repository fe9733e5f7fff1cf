"""Measure a batch of prompts on a prepared model: one dataset of the schema for each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import xarray as xr

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.block_jacobian import one_at_a_time
from blockcoupling.jacobian.block_operators import SameToken, between_tokens
from blockcoupling.jacobian.decompose import Decomposition, decompose
from blockcoupling.jacobian.degenerate import AtPrompt
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.jacobian.mean import MeanOperator
from blockcoupling.jacobian.operator import Operator, StackedOperator
from blockcoupling.measurement.dataset import dataset_of
from blockcoupling.measurement.memory import (
    BATCH_BYTES,
    bytes_per_prompt,
    free_bytes,
    products_kept,
    prompts_within,
)
from blockcoupling.measurement.prepare import CallOfPart, Prepared
from blockcoupling.measurement.prompts import Prompt
from blockcoupling.measurement.record import Position, RecordedPrompt, record_batch
from blockcoupling.measurement.zero_jacobians import warn_of_zero_jacobians
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.prompt_loss import NoPredictions, prompt_losses
from blockcoupling.transformer.running import differentiable

logger = logging.getLogger(__name__)

# How many patches go through a block together on their way to a mean.
PATCHES_AT_ONCE = 16


def default_batch(prepared: Prepared, prompts: Sequence[Prompt]) -> int:
    """Prompts per batch where nobody asks for a number: by counts, so that bits are the same.

    Only where memory does not hold as many are they fewer, and a warning says so.
    """
    longest = max(prompt.length for prompt in prompts)
    pairs = max(len(prompt.pairs) for prompt in prompts)
    kept = products_kept(prepared.settings)
    blocks = prepared.blocks
    each = bytes_per_prompt(blocks.dimension, len(blocks), prepared.k, longest, pairs, kept)
    batch = prompts_within(BATCH_BYTES, each)
    fitting = prompts_within(free_bytes(str(prepared.device)) // 2, each)
    if fitting >= min(batch, len(prompts)):
        return batch
    logger.warning(
        "memory holds %d prompts per batch, fewer than the %d that are the default for this model "
        "and these prompts. Numbers may differ in their last bits from those of a machine with "
        "more memory; `batch` = %d gives the same bits on both",
        fitting,
        batch,
        fitting,
    )
    return fitting


def measure_batch(prepared: Prepared, prompts: Sequence[Prompt]) -> list[xr.Dataset]:
    """Measure prompts together.

    Args:
        prepared: the model.
        prompts: one batch, each prompt with its pairs of tokens (`prepare.prepare_texts`).

    Returns:
        One dataset of the schema for each prompt.

    Raises:
        MeasurementError: a number cannot be trusted; the message names block and prompt.
    """
    settings = prepared.settings
    with differentiable(prepared.model), full_float32():
        recorded = record_batch(prepared, prompts)
        losses = _prompt_losses(prepared, recorded)
        positions = [position for one in recorded for position in one.positions]
        # Decoded tokens go through a block together, the others after them, one by one.
        positions.sort(key=lambda position: not position.decoded)
        found = _decomposed(
            prepared,
            positions,
            swapped=settings.swapped,
            overlaps=settings.overlaps,
            full=settings.full,
            eigenvalues=settings.eigenvalues,
            cumulative=settings.cumulative,
        )
        parts = {
            name: _decomposed(prepared, [_of_part(each, calls) for each in positions], of=name)
            for name, calls in prepared.parts.items()
        }
        rows = {id(position): row for row, position in enumerate(positions)}
        found_of = [
            (one, loss, [rows[id(position)] for position in one.positions])
            for one, loss in zip(recorded, losses, strict=True)
        ]
        measured = [
            dataset_of(prepared, one, loss, found, parts, which) for one, loss, which in found_of
        ]
    zero = (found.S[..., 0] == 0).nonzero().tolist()
    warn_of_zero_jacobians((positions[row].place, block + 1) for row, block in zero)
    return measured


def _decomposed(
    prepared: Prepared, positions: Sequence[Position], of: str = "", **kept: Any
) -> Decomposition:
    """The triples of all blocks at some positions, and what else is to be kept.

    Args:
        prepared: the model.
        positions: the decoded ones first.
        of: the part that the calls are of, for messages.
        kept: further arguments of `decompose`.
    """
    settings = prepared.settings
    where = f" ({of})" if of else ""
    try:
        return decompose(
            _operators(prepared, positions),
            len(prepared.blocks),
            prepared.k,
            method=settings.method,
            tolerance=settings.tolerance,
            seed=settings.seed,
            # One block's weights are held at a time; TF32 is a setting of the process.
            workers=None if prepared.weights is None and settings.matmul == "float32" else 1,
            **kept,
        )
    except AtPrompt as error:
        name = positions[error.prompt].prompt
        raise MeasurementError(f"prompt {name!r}, {error}{where}") from error
    except MeasurementError as error:
        names = ", ".join(repr(name) for name in dict.fromkeys(p.prompt for p in positions))
        raise MeasurementError(f"prompt {names}: {error}{where}") from error


class _CallsOfPart(Sequence[BlockCall]):
    """Calls of a part, made from the blocks' when they are needed: weights may be streamed."""

    def __init__(self, calls: Sequence[BlockCall], of_part: Sequence[CallOfPart]) -> None:
        self._calls, self._of_part = calls, of_part

    def __len__(self) -> int:
        return len(self._calls)

    def __getitem__(self, block: Any) -> Any:
        try:
            with one_at_a_time:
                return self._of_part[block](self._calls[block])
        except UserError as error:
            raise MeasurementError(f"block {block + 1}: {error}") from error


def _of_part(position: Position, of_part: Sequence[CallOfPart]) -> Position:
    """The same position, with the calls of a part of each block."""
    patches = [_of_part(patch, of_part) for patch in position.patches]
    return replace(position, calls=_CallsOfPart(position.calls, of_part), patches=patches)


def _operators(prepared: Prepared, positions: Sequence[Position]) -> Callable[[int], Operator]:
    """Block (0 …) → its operator at all positions, the decoded ones of them first."""
    matmul, weights = prepared.settings.matmul, prepared.weights

    def one_token(some: Sequence[Position]) -> Callable[[int], Operator]:
        return SameToken(partial(_calls_of, some), matmul)

    def full_sequence(position: Position, block: int) -> Operator:
        call, pair = position.calls[block], (position.token_in, position.token_out)
        operator = between_tokens(call, *pair, matmul)
        operator.attention = "full-sequence"
        return operator

    def mean(position: Position) -> Callable[[int], Operator]:
        alone = [patch for patch in position.patches if patch.decoded]
        starts = range(0, len(alone), PATCHES_AT_ONCE)
        parts: list[Callable[[int], Operator]] = [
            one_token(alone[start : start + PATCHES_AT_ONCE]) for start in starts
        ]
        others = [patch for patch in position.patches if not patch.decoded]
        parts += [partial(full_sequence, patch) for patch in others]
        return lambda block: MeanOperator([partial(part, block) for part in parts])

    decoded = [position for position in positions if position.decoded]
    parts: list[Callable[[int], Operator]] = [one_token(decoded)] if decoded else []
    for position in positions[len(decoded) :]:
        parts.append(mean(position) if position.patches else partial(full_sequence, position))

    def operator(block: int) -> Operator:
        if weights is not None:
            weights.hold(prepared.blocks.modules[block])
        members = [part(block) for part in parts]
        return members[0] if len(members) == 1 else StackedOperator(members)

    return operator


def _calls_of(positions: Sequence[Position], block: int) -> list[BlockCall]:
    return [position.calls[block] for position in positions]


def _prompt_losses(prepared: Prepared, recorded: Sequence[RecordedPrompt]) -> list[float]:
    """The model's loss on each prompt; NaN where it does not predict the next token."""
    prompts = [one.prompt.given for one in recorded]
    if prepared.is_causal and not any(given.is_floating_point() for given in prompts):
        returned = [one.returned for one in recorded]
        try:
            with ExitStack() as around:
                if prepared.weights is not None:
                    around.enter_context(prepared.weights.head_in_slices(prepared.model))
                return prompt_losses(prepared.model, prepared.blocks, prompts, returned)
        except UserError as error:
            level = logging.INFO if isinstance(error, NoPredictions) else logging.WARNING
            logger.log(level, "the loss on the prompts is not available: %s", error)
    return [float("nan")] * len(recorded)
