"""Measure a batch of prompts on a prepared model: one dataset of the schema for each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import xarray as xr

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.block_operators import SameToken, between_tokens
from blockcoupling.jacobian.decompose import decompose
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
from blockcoupling.measurement.prepare import Prepared
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
    settings, blocks, weights = prepared.settings, prepared.blocks, prepared.weights
    with differentiable(prepared.model), full_float32():
        recorded = record_batch(prepared, prompts)
        losses = _prompt_losses(prepared, recorded)
        positions = [position for one in recorded for position in one.positions]
        # Decoded tokens go through a block together, the others after them, one by one.
        positions.sort(key=lambda position: not position.decoded)
        operators = _operators(prepared, positions)
        try:
            found = decompose(
                operators,
                len(blocks),
                prepared.k,
                method=settings.method,
                tolerance=settings.tolerance,
                swapped=settings.swapped,
                overlaps=settings.overlaps,
                full=settings.full,
                seed=settings.seed,
                # One block's weights are held at a time; TF32 is a setting of the process.
                workers=None if weights is None and settings.matmul == "float32" else 1,
            )
        except AtPrompt as error:
            name = positions[error.prompt].prompt
            raise MeasurementError(f"prompt {name!r}, {error}") from error
        except MeasurementError as error:
            names = ", ".join(repr(prompt.id) for prompt in prompts)
            raise MeasurementError(f"prompt {names}: {error}") from error
    zero = (found.S[..., 0] == 0).nonzero().tolist()
    warn_of_zero_jacobians((positions[row].place, block + 1) for row, block in zero)
    rows = {id(position): row for row, position in enumerate(positions)}
    return [
        dataset_of(prepared, one, loss, found, [rows[id(position)] for position in one.positions])
        for one, loss in zip(recorded, losses, strict=True)
    ]


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
