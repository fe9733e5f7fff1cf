"""Prepare a model and its prompts for measuring, and report all that is wrong before long work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blockcoupling.config.measurement import Settings
from blockcoupling.errors import UserError
from blockcoupling.jacobian.matmul import full_float32
from blockcoupling.measurement.prompts import Prompt, refuse_images, refuse_texts, unfit
from blockcoupling.measurement.verification import Verifier
from blockcoupling.transformer.blocks import Blocks, find_blocks
from blockcoupling.transformer.causality import is_causal
from blockcoupling.transformer.final_norm import find_final_norm
from blockcoupling.transformer.handed_over import (
    as_handed_over,
    refuse_other_copy,
    refuse_other_implementation,
)
from blockcoupling.transformer.images import Picture, find_layout
from blockcoupling.transformer.recording import record_full
from blockcoupling.transformer.running import Given, differentiable, refuse_absent_weights
from blockcoupling.transformer.streaming import BlockWeights, StreamedModel
from blockcoupling.transformer.tokens import TokenizedTexts, token_pairs

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

AnyModel = nn.Module | StreamedModel


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
        verifier: compares single tokens with the full forward pass. It remembers what it has
            compared, so that later batches cost less; it changes no number.
    """

    model: nn.Module
    weights: BlockWeights | None
    settings: Settings
    blocks: Blocks
    is_causal: bool
    final_norm: nn.Module | None
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
    return Prepared(module, weights, settings, blocks, causal, norm)


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
