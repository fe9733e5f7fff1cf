"""How well a language model predicts text: loss and accuracy on held-out text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import blockcoupling
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.progress import Progress
from blockcoupling.scores.table import Rows, metric_row
from blockcoupling.sources.corpus import Passage, corpus

if TYPE_CHECKING:
    from blockcoupling.scores.scores import Checkpoint

LONGEST_WINDOW = 2048
"""Tokens of a window where the model has no limit."""


def heldout_scores(
    checkpoint: Checkpoint, asked: object = True, before: Rows | None = None
) -> Rows:
    """Scores on the built-in held-out text; see `scores.table`."""
    return passage_scores(checkpoint, "heldout", corpus().heldout)


def passage_scores(checkpoint: Checkpoint, score: str, passages: Sequence[Passage]) -> Rows:
    """Scores of a language model on passages of the built-in text.

    Args:
        checkpoint: Checkpoint of a causal language model.
        score: Name of the score.
        passages: The text.

    Returns:
        The rows of `text_scores`, with score and source.
    """
    model, tokenizer = checkpoint.language_model
    rows = text_scores(
        model, tokenizer, [passage.text for passage in passages], checkpoint.record.get("context")
    )
    return [{"score": score, "source": builtin_source(), **row} for row in rows]


def builtin_source() -> str:
    """Which built-in text is used, and the version that evaluates."""
    return f"{corpus().source}; evaluated by blockcoupling {blockcoupling.__version__}"


def text_scores(model: Any, tokenizer: Any, texts: Sequence[str], context: int | None) -> Rows:
    """Loss in nats per byte and per token, and next-token accuracy.

    Each text follows the tokenizer's BOS (or EOS) token and is cut into windows of the model's
    context that do not overlap. Every token is predicted exactly once, the first of a window from
    the last of the window before it.

    A value is a ratio of sums over texts (nats by bytes, say). Its standard error is that of a
    ratio with texts as independent units: sqrt(n/(n−1) Σ(yᵢ − r xᵢ)²) / Σxᵢ (Cochran, Sampling
    Techniques, 3rd ed., eq. 6.13).

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: What to predict.
        context: Most tokens of a window; 2048 if the model has no limit.

    Returns:
        One row per metric: metric, value, standard_error, n, higher_is_better.

    Raises:
        UserError: The tokenizer has neither a BOS nor an EOS token.
        MeasurementError: The loss is not finite.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise UserError(
            "the tokenizer has neither a BOS nor an EOS token to predict the first token of a text "
            "from; set score.heldout: false"
        )
    tallies = []
    with Progress(len(texts), "scoring", "text") as progress:
        for text in texts:
            tallies.append(_tally(model, tokenizer, text, start, context or LONGEST_WINDOW))
            progress.advance()
    nats, correct, tokens, sizes = np.array(tallies, dtype=float).T
    if not np.isfinite(nats).all():
        raise MeasurementError("the loss on the built-in text is not finite")
    return [
        metric_row("nats_per_byte", *ratio(nats, sizes), len(texts), higher_is_better=False),
        metric_row("nats_per_token", *ratio(nats, tokens), len(texts), higher_is_better=False),
        metric_row("next_token_accuracy", *ratio(correct, tokens), len(texts)),
    ]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float]:
    """A ratio of sums over independent units, and its standard error (NaN for a single unit)."""
    n, total = len(numerator), denominator.sum()
    value = numerator.sum() / total
    if n < 2:
        return float(value), math.nan
    spread = ((numerator - value * denominator) ** 2).sum()
    return float(value), float(np.sqrt(n / (n - 1) * spread) / total)


def _tally(
    model: Any, tokenizer: Any, text: str, start: int, context: int
) -> tuple[float, int, int, int]:
    """Loss in nats, tokens predicted correctly, tokens, and bytes of one text."""
    import torch

    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    inputs = torch.tensor([start, *ids[:-1]], device=model.device)
    targets = torch.tensor(ids, device=model.device)
    whole = len(ids) // context * context
    windows = [
        (inputs[:whole].view(-1, context), targets[:whole].view(-1, context)),
        (inputs[None, whole:], targets[None, whole:]),
    ]
    nats, correct = 0.0, 0
    for given, wanted in windows:
        if wanted.numel():
            with torch.inference_mode():
                logits = model(input_ids=given, use_cache=False).logits.flatten(0, 1).float()
            loss = torch.nn.functional.cross_entropy(logits, wanted.flatten(), reduction="sum")
            nats += loss.item()
            correct += int((logits.argmax(-1) == wanted.flatten()).sum())
    return nats, correct, len(ids), len(text.encode())
