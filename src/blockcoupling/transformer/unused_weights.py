"""Stored tensors that a model has no use for: refused, or named in the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from torch import nn

from blockcoupling.errors import UserError

logger = logging.getLogger(__name__)

# Constants that earlier versions of transformers stored and that models now compute.
_COMPUTED = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"\.masked_bias$")


def unused_by(model: nn.Module, stored: Iterable[str]) -> list[str]:
    """Names of stored tensors that are not in a model, with or without its body's prefix.

    Omitted are those that its class or transformers computes instead.
    """
    prefix = _prefix(model)
    own = {*model.state_dict(), *(name for name, _ in model.named_buffers())}
    known = {s for n in own for s in (n, n.removeprefix(prefix), prefix + n)}
    ignored = (*_COMPUTED, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()))
    left = sorted(set(stored) - known)
    return [name for name in left if not any(re.search(each, name) for each in ignored)]


def refuse_unused(model: nn.Module, unused: Sequence[str], stored: Iterable[str]) -> None:
    """Refuse tensors of a model's body that it does not use; name others in the log.

    Others are heads and poolers, on which no block depends.

    Args:
        model: with or without its weights in memory.
        unused: names of the tensors.
        stored: names of all tensors of the files; where some have the body's prefix, others are
            heads.

    Raises:
        UserError: naming the tensors.
    """
    prefix = _prefix(model)
    headed = any(name.startswith(prefix) for name in stored)
    lists = [name + "." for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    within = tuple(s for name in lists for s in (name, name.removeprefix(prefix), prefix + name))
    body = [
        name
        for name in unused
        if "pooler" not in name.split(".") and (name.startswith((prefix, *within)) or not headed)
    ]
    if body:
        raise UserError(
            f"the files hold {len(body)} tensors that {type(model).__name__} has no use for: "
            f"{', '.join(body[:5])}. Numbers without them may be wrong: save the model again "
            "with save_pretrained, or remove them."
        )
    if unused:
        logger.warning(
            "the files hold %d tensors that %s does not use and no block depends on: %s",
            len(unused),
            type(model).__name__,
            ", ".join(unused[:5]),
        )


def _prefix(model: nn.Module) -> str:
    return getattr(model, "base_model_prefix", "") + "."
