"""Whether a model that is ready to be differentiated computes what it does as it was handed over.

`running.differentiable` replaces implementations of attention and experts by PyTorch's plain ones,
and a model of low precision is measured on a float32 copy. The hidden states of an example show
whether it is still the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blockcoupling.errors import UserError
from blockcoupling.transformer.agreement import GROWN
from blockcoupling.transformer.blocks import Blocks, watch_blocks
from blockcoupling.transformer.running import Given, differentiable, replaceable

States = Sequence[Float[Tensor, "1 token embed"]]
"""The hidden state after each block."""

# What rounding explains in low precision, in units of it: 12 % of a hidden state in bfloat16.
# Half of SmolLM2-135M's tokens differ by up to 2 %.
_LOW_PRECISION = 16


def as_handed_over(
    model: nn.Module, given: Given, stage: int | None = None
) -> tuple[Blocks, States] | None:
    """The blocks of a model, and the hidden states that it computes with its own implementations.

    Args:
        model: the model.
        given: an example.
        stage: as for `watch_blocks`.

    Returns:
        None if it cannot be run with them, as fused kernels for half precision in float32: then
        there is nothing to compare with.
    """
    try:
        with differentiable(model, plain=False):
            return watch_blocks(model, given, stage)
    except UserError:
        return None


def refuse_other_implementation(
    model: nn.Module,
    mine: States,
    own: States,
    again: Callable[[], tuple[Blocks, States] | None],
) -> None:
    """Refuse a model that computes something else with plain implementations than with its own.

    Args:
        model: the model.
        mine: as it is measured.
        own: as it computes when it is called.
        again: the model as it was handed over, once more. One that does not repeat itself is
            random, which is reported where its blocks are called.

    Raises:
        UserError: with the size of the difference.
    """
    different = _different(mine, own, GROWN, 1.0)
    if different is None:
        return
    repeated = again()
    if repeated is None or _different(repeated[1], own, GROWN, 1.0) is not None:
        return
    replaced = ", ".join(sorted({str(value) for *_, value in replaceable(model)}))
    raise UserError(
        f"{type(model).__name__} computes other hidden states with eager attention than with "
        f"{replaced or 'its own'}, with which it was passed: {different}. Something in it depends "
        "on that: choose the implementation that you mean with model.set_attn_implementation, or "
        "register your own under a name of its own."
    )


def refuse_other_copy(original: nn.Module, mine: States, own: States) -> None:
    """Refuse a model whose copy in another precision computes something else.

    Args:
        original: the model.
        mine: of its copy, which is measured.
        own: of the model when it is called.

    Raises:
        UserError: with the size of the difference.
    """
    types = {p.dtype for p in original.parameters() if p.is_floating_point()}
    allowed = max(GROWN, _LOW_PRECISION * max(torch.finfo(each).eps for each in types))
    # A rounded router may send some tokens to other experts: half of them have to agree.
    if (different := _different(mine, own, allowed, 0.5)) is not None:
        raise UserError(
            f"{type(original).__name__} computes other hidden states than the copy of it with "
            f"weights in {str(mine[0].dtype).removeprefix('torch.')}, which would be measured: "
            f"{different}. Something in it acts on its own modules alone: convert it yourself, "
            "such as with model.float(), and pass the result."
        )


def _different(mine: States, own: States, allowed: float, share: float) -> str | None:
    """Where states differ by more than is allowed at more than 1 − `share` of the tokens."""
    for block, states in enumerate(zip(mine, own, strict=True), start=1):
        one, other = (state[0].double().cpu() for state in states)
        size = (one - other).norm(dim=-1) / other.norm(dim=-1)
        error = size.nan_to_num().quantile(share).item()
        if error > allowed:
            return (
                f"after block {block} they differ by {error:.1%}, and rounding explains "
                f"{allowed:.1%}"
            )
    return None
