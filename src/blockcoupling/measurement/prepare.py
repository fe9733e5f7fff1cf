"""Prepare a model and its prompts for measuring, and report all that is wrong before long work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from blockcoupling.config.measurement import Settings
from blockcoupling.errors import UserError
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.measurement.prompts import Prompt, refuse_images, refuse_texts, unfit
from blockcoupling.measurement.verification import Verifier
from blockcoupling.transformer.blocks import Blocks, find_blocks
from blockcoupling.transformer.calls import BlockCall
from blockcoupling.transformer.causality import is_causal
from blockcoupling.transformer.detached import detached
from blockcoupling.transformer.final_norm import find_final_norm
from blockcoupling.transformer.halves import find_halves
from blockcoupling.transformer.handed_over import (
    as_handed_over,
    refuse_other_copy,
    refuse_other_implementation,
)
from blockcoupling.transformer.images import Picture, find_layout
from blockcoupling.transformer.readout import Readout, find_readout
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import (
    Given,
    differentiable,
    refuse_absent_weights,
    text_config,
)
from blockcoupling.transformer.streaming import BlockWeights, StreamedModel
from blockcoupling.transformer.tokens import TokenizedTexts, text_of, token_pairs

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

logger = logging.getLogger(__name__)

AnyModel = nn.Module | StreamedModel
CallOfPart = Callable[[BlockCall], BlockCall]

READ = 10
"""Singular vectors of a block that are read out."""
READ_BY_DEFAULT = 5
CHEAP = 1e10
"""Floating-point operations of the readout of a prompt up to which it is done by default."""


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be measured.

    Attributes:
        model: weights in float32 or float64.
        weights: brings blocks into memory; None unless the model is streamed.
        settings: what to measure.
        blocks: the model's blocks.
        is_causal: whether only earlier tokens act on a token.
        final_norm: the norm to measure the last block after, where the settings ask for it.
        parts: how a call of each of `settings.other_parts` follows from a block's, by block.
        readout: reads singular vectors out; None where that is not asked for.
        verifier: compares single tokens with the full forward pass. It remembers what it has
            compared, so that later batches cost less; it changes no number.
    """

    model: nn.Module
    weights: BlockWeights | None
    settings: Settings
    blocks: Blocks
    is_causal: bool
    final_norm: nn.Module | None
    parts: Mapping[str, Sequence[CallOfPart]] = field(default_factory=dict)
    readout: Readout | None = None
    verifier: Verifier = field(default_factory=Verifier, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the model is (for a streamed model, what is outside its blocks)."""
        return device_of(self.model)

    @property
    def k(self) -> int:
        """K_max.

        Raises:
            UserError: the settings ask for more triples than the Jacobians have.
        """
        d = self.blocks.dimension
        if (k := self.settings.k_for(d)) > d:
            raise UserError(
                f"k = {k}: this model's residual stream is d = {d} wide, so a Jacobian has 1 … {d} "
                f"singular triples. Choose k from 1 to {d}."
            )
        return k

    def refuse_bidirectional(self, what: str, section: str) -> None:
        """Refuse a model whose tokens act on earlier ones.

        Args:
            what: what needs a causal model, the start of a sentence.
            section: the section of a study that asks for it.

        Raises:
            UserError: the model is bidirectional.
        """
        if not self.is_causal:
            raise UserError(
                f"{what} in causal models only, and {type(self.model).__name__} is bidirectional. "
                f"Omit `{section}` for it."
            )


def prepare(
    model: AnyModel,
    example: Given,
    settings: Settings,
    k_when_smaller: str = "error",
    *,
    original: nn.Module | None = None,
) -> Prepared:
    """Find out what measuring a model needs to know, by passing an example through it.

    Args:
        model: a model in memory, or a streamed one.
        example: token ids (1, token), a few are enough; or an image's pixel values.
        settings: what to measure.
        k_when_smaller: where `settings.k` is larger than the model's width d, "d" takes k = d;
            "error" leaves it to be refused (`Prepared.k`).
        original: the model that `model` is a copy of in another precision, if any.

    Raises:
        UserError: the model has no weights to differentiate, no single stack of blocks, cannot
            be run like this, or computes something else once it can be differentiated.
    """
    module = module_of(model)
    weights = model.weights if isinstance(model, StreamedModel) else None
    if weights is None:
        refuse_absent_weights(module)
    with ExitStack() as around:
        around.enter_context(full_float32())
        if weights is not None:
            around.enter_context(weights.on_entry())
        with torch.inference_mode(False):
            given = example.to(device_of(module)).clone()  # may come from inference mode
        found = as_handed_over(module, given, settings.stage)
        with differentiable(module):
            blocks = found[0] if found else find_blocks(module, given, settings.stage)
            calls = record_full(module, blocks, given)
            causal = is_causal(module, blocks, given, calls)
            norm = find_final_norm(module, blocks, given) if settings.final_norm else None
            parts = _parts(module, blocks, given, settings)
            read = _readout(module, weights, blocks, given, causal, settings)
        states = [call.output for call in calls]
        if found is not None:
            again = partial(as_handed_over, module, given, settings.stage)
            refuse_other_implementation(module, states, found[1], again)
    if original is not None:
        weight = next(p for p in original.parameters() if p.is_floating_point())
        given = given.to(weight.device, weight.dtype if given.is_floating_point() else None)
        if (found := as_handed_over(original, given, settings.stage)) is not None:
            refuse_other_copy(original, states, found[1])
    if k_when_smaller == "d" and settings.k is not None:
        settings = settings.model_copy(update={"k": min(settings.k, blocks.dimension)})
    settings = settings.model_copy(update={"readout": 0 if read is None else read.top})
    return Prepared(module, weights, settings, blocks, causal, norm, parts, read)


def _parts(
    model: nn.Module, blocks: Blocks, given: Given, settings: Settings
) -> dict[str, list[CallOfPart]]:
    """How a call of each part follows from a block's, for all blocks."""
    if not settings.other_parts:
        return {}
    if not given.is_floating_point() and given.shape[1] < 2:
        given = given.repeat(1, 2)  # one token alone does not show what moves between tokens
    calls = record_full(model, blocks, given)
    parts: dict[str, list[CallOfPart]] = {}
    if halves := [part for part in settings.other_parts if part != "detached"]:
        found = find_halves(calls)
        parts = {half: [partial(each.call, part=half) for each in found] for half in halves}
    if settings.detached:
        parts["detached"] = [detached(call) for call in calls]
    return parts


def _readout(
    model: nn.Module,
    weights: BlockWeights | None,
    blocks: Blocks,
    given: Given,
    causal: bool,
    settings: Settings,
) -> Readout | None:
    """What reads singular vectors out, where that is asked for, or possible and cheap."""
    vocabulary = getattr(text_config(model), "vocab_size", None)
    if (top := settings.readout) is None:
        k = min(settings.k_for(blocks.dimension), READ)
        directions = 4 * k * len(blocks)
        cost = 2 * directions * blocks.dimension * (vocabulary or np.inf)
        top = READ_BY_DEFAULT if cost <= CHEAP else 0
    if top == 0:
        return None
    try:
        if not causal or given.is_floating_point():
            raise UserError(f"{type(model).__name__} does not predict the next token")
        head = nullcontext if weights is None else partial(weights.head_in_slices, model)
        return find_readout(model, blocks, given, top, head)
    except UserError as error:
        if settings.readout is None:
            logger.info("singular vectors are not read out: %s", error)
            return None
        raise UserError(f"{error}. Omit `readout` for it.") from error


def prepare_texts(
    model: AnyModel,
    tokenizer: Callable[[str], Any],
    texts: Iterable[tuple[str, str]],
    settings: Settings,
    *,
    k_when_smaller: str = "error",
    known: Sequence[str] = (),
    original: nn.Module | None = None,
) -> tuple[Prepared, list[Prompt]]:
    """Prepare a model for texts; bidirectional models get the tokenizer's special tokens, too.

    Args:
        model: a model in memory, or a streamed one.
        tokenizer: text → input_ids, or → a mapping that holds them.
        texts: (id, text) of each.
        settings: what to measure.
        k_when_smaller: see `prepare`.
        known: what is known to be wrong already; it is reported together with the rest.
        original: see `prepare`.

    Returns:
        The model, and the prompts, each with the pairs of tokens to measure.

    Raises:
        UserError: listing all that is wrong.
    """
    refuse_texts(module_of(model))
    read = TokenizedTexts.of(tokenizer, texts, model)
    prepared = _prepared_for(model, read.whole, settings, k_when_smaller, original)
    if isinstance(prepared, Prepared) and prepared.readout is not None:
        readout = replace(prepared.readout, text=partial(text_of, tokenizer))
        prepared = replace(prepared, readout=readout)
    causal = isinstance(prepared, UserError) or prepared.is_causal
    prompts = read.without_special() if causal else read.with_special()
    return _checked(model, prepared, prompts, settings, known)


def prepare_prompts(
    model: AnyModel,
    prompts: Sequence[Prompt],
    settings: Settings,
    original: nn.Module | None = None,
) -> tuple[Prepared, list[Prompt]]:
    """Prepare a model for prompts that are tokenized already; otherwise as `prepare_texts`."""
    prepared = _prepared_for(model, prompts, settings, original=original)
    return _checked(model, prepared, prompts, settings)


def prepare_images(
    model: AnyModel,
    names: Sequence[str],
    values: Sequence[Float[Tensor, "channel height width"]],
    settings: Settings,
    *,
    k_when_smaller: str = "error",
    known: Sequence[str] = (),
    original: nn.Module | None = None,
) -> tuple[Prepared, list[Prompt]]:
    """Prepare a model for images.

    Args:
        model: a model in memory.
        names: ids of the images.
        values: their pixel values, in the model's own preprocessing; sizes may differ.
        settings: what to measure.
        k_when_smaller: see `prepare`.
        known: what is known to be wrong already.
        original: see `prepare`.

    Returns:
        The model, and the images as it sees them, each with the pairs of tokens to measure.

    Raises:
        UserError: listing all that is wrong.
    """
    module = module_of(model)
    refuse_images(module)
    if not names:
        raise UserError("no image to measure")
    weights = next(p.dtype for p in module.parameters() if p.is_floating_point())
    given = [value[None].to(device_of(module), weights) for value in values]
    prepared = prepare(model, given[0], settings, k_when_smaller, original=original)
    first = {each.shape: each for each in reversed(given)}  # of every size
    with differentiable(module), torch.no_grad():
        layouts = {
            shape: find_layout(module, prepared.blocks, each) for shape, each in first.items()
        }
    images = [
        Picture(name, each, layouts[each.shape]) for name, each in zip(names, given, strict=True)
    ]
    return _checked(model, prepared, images, settings, known)


def module_of(model: AnyModel) -> nn.Module:
    """The modules of a model, streamed or not."""
    return model.model if isinstance(model, StreamedModel) else model


def device_of(model: nn.Module) -> torch.device:
    """Where a model takes its input."""
    return next(p.device for p in model.parameters() if not p.is_meta)


def _prepared_for(
    model: AnyModel,
    prompts: Sequence[Prompt],
    settings: Settings,
    k_when_smaller: str = "error",
    original: nn.Module | None = None,
) -> Prepared | UserError:
    """The prepared model, by the first prompt that it can be run on; or why it is refused."""
    module = module_of(model)
    fit = next((prompt for prompt in prompts if unfit(module, prompt) is None), None)
    example = torch.zeros(1, 1, dtype=torch.long) if fit is None else fit.beginning
    try:
        return prepare(model, example, settings, k_when_smaller, original=original)
    except UserError as error:
        return error


def _checked(
    model: AnyModel,
    prepared: Prepared | UserError,
    prompts: Sequence[Prompt],
    settings: Settings,
    known: Sequence[str] = (),
) -> tuple[Prepared, list[Prompt]]:
    """The model and prompts with their pairs of tokens, or an error that lists all that is wrong.

    Raises:
        UserError: listing what was known, what is wrong with prompts, and with the model.
    """
    if not prompts:
        raise UserError("no prompt to measure")
    module = module_of(model)
    # A refused model may be of either kind: the pairs are checked as those of a causal model.
    causal = isinstance(prepared, UserError) or prepared.is_causal
    wrong, complete = list(known), []
    for prompt in prompts:
        why = unfit(module, prompt)
        if why is None:
            try:
                pairs = token_pairs(settings.tokens, prompt.length, prompt.places, causal)
                complete.append(replace(prompt, pairs=tuple(pairs)))
            except UserError as error:
                why = f"cannot be measured: {error}"
        if why is not None:
            wrong.append(f"prompt {prompt.id!r} {why}")
    try:
        if isinstance(prepared, UserError):
            raise prepared
        _ = prepared.k
    except UserError as error:
        wrong.append(str(error))
    if wrong or isinstance(prepared, UserError):
        raise UserError("\n".join(wrong))
    return prepared, complete
