"""How well a model does: on held-out text, on benchmarks, or as somebody else recorded it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.lab.training.gap import gap
from blockcoupling.progress import Progress
from blockcoupling.sources.models import load_model
from blockcoupling.sources.records import read_record

COLUMNS = (
    "model",
    "checkpoint",
    "score",
    "metric",
    "value",
    "standard_error",
    "n",
    "higher_is_better",
    "source",
)


def write_scores(
    record: Mapping[str, Any] | Path | str,
    spec: Mapping[str, Any],
    out: Path | str,
    device: str = "auto",
) -> None:
    """Evaluate and write a Parquet table; see `evaluate`."""
    table = evaluate(record, spec, device)
    with replacing(out) as unfinished:
        table.to_parquet(unfinished, index=False, write_page_checksum=True)


def evaluate(
    record: Mapping[str, Any] | Path | str, spec: Mapping[str, Any], device: str = "auto"
) -> pd.DataFrame:
    """Every score that a checkpoint has.

    Args:
        record: A model's record, or its file.
        spec: `Study.score_spec(model, checkpoint)`: `heldout` (whether to evaluate the built-in
            held-out text), `gap` (of a model trained here: the share `text` of the training text
            that it has seen, to evaluate it on that, too), `harness` (tasks of
            lm-evaluation-harness by name), `images` (held out, to evaluate an image classifier on:
            the fields of `config.images.ImagePrompts`) and `recorded` (scores by name).
        device: Where to evaluate.

    Returns:
        One row a metric: model, checkpoint, score, metric, value, standard_error (NaN where not
        known), n (texts or questions the value is the mean of; 0 for a recorded one),
        higher_is_better, and source: what it was evaluated on and with, or where it was read.

    Raises:
        UserError: the model cannot be loaded, or has no head to predict tokens with.
    """
    if not isinstance(record, Mapping):
        record = read_record(record)
    rows = [
        {"score": name, "n": 0, **score} for name, score in (spec.get("recorded") or {}).items()
    ]
    if spec.get("images"):
        from blockcoupling.scores.classification import image_scores

        rows += image_scores(*load_model(record, device), spec["images"])
    if spec.get("heldout") or spec.get("harness"):
        if not record.get("causal", True):
            raise UserError(
                f"model {record['name']}, checkpoint {record['checkpoint']}: it looks both ways, "
                "and predicts no next token; set score.heldout: false and ask for no tasks of "
                "score.harness"
            )
        model, tokenizer = load_model(record, device)
        if model.get_output_embeddings() is None:
            raise UserError(
                f"model {record['name']}, checkpoint {record['checkpoint']}: its files hold no "
                "head (lm_head), so that it predicts no tokens; set score.heldout: false and ask "
                "for no tasks of score.harness, or give the weights with their head"
            )
        if spec.get("heldout"):
            share = (spec.get("gap") or {}).get("text")
            rows += heldout_scores(model, tokenizer, record.get("context"), share)
        if spec.get("harness"):
            from blockcoupling.scores.harness import harness_scores

            rows += harness_scores(model, tokenizer, spec["harness"])
    identity = {"model": record["name"], "checkpoint": record["checkpoint"]}
    table = pd.DataFrame([identity | row for row in rows], columns=list(COLUMNS))
    types = {"value": float, "standard_error": float, "n": int, "higher_is_better": bool}
    return table.astype(types)


def heldout_scores(
    model: Any, tokenizer: Any, context: int | None, share: float | None = None
) -> list[dict[str, Any]]:
    """Loss and next-token accuracy on the built-in held-out text; see `text_scores`.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        context: Most tokens a window can have.
        share: Of the training text, what the model was trained on: `training` has its scores on as
            many passages of that, and `gap` the difference. None: only `heldout`.
    """
    from blockcoupling.sources.corpus import corpus

    texts = corpus()
    source = f"{texts.source}; evaluated by blockcoupling {blockcoupling.__version__}"
    rows = text_scores(model, tokenizer, [passage.text for passage in texts.heldout], context)
    scores = {"heldout": rows}
    if share is not None:
        seen = [passage.text for passage in texts.seen(share)]
        scores["training"] = text_scores(model, tokenizer, seen, context)
        scores["gap"] = gap(rows, scores["training"])
    return [
        {"score": score, "source": source, **row} for score, rows in scores.items() for row in rows
    ]


@dataclass(frozen=True)
class _Tally:
    """What one text adds up to."""

    nats: float
    correct: int
    tokens: int
    size: int


def text_scores(
    model: Any, tokenizer: Any, texts: Sequence[str], context: int | None
) -> list[dict[str, Any]]:
    """Loss in nats a byte and a token, and the share of tokens predicted right.

    Each text begins after the tokenizer's beginning (or end-of-text) mark and is cut into windows
    of the model's context that do not overlap, so that every token is predicted exactly once, the
    first of a window from the last of the window before it.

    A value is a ratio of sums over texts (nats by bytes, say), and its standard error that of a
    ratio with texts as the independent units: sqrt(n/(n−1) Σ(yᵢ − r xᵢ)²) / Σxᵢ (Cochran,
    Sampling Techniques, 3rd ed., eq. 6.13).

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: What to predict.
        context: Most tokens a window can have; 2048 where the model has no limit.

    Raises:
        UserError: the tokenizer has neither a beginning nor an end-of-text mark.
        MeasurementError: the loss is not finite.
    """
    mark = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if mark is None:
        raise UserError(
            "the tokenizer has neither a beginning-of-text nor an end-of-text token to predict the "
            "first token of a text from; set score.heldout: false"
        )
    tallies = []
    with Progress(len(texts), "scoring", "text") as progress:
        for text in texts:
            tallies.append(_tally(model, tokenizer, text, mark, context or 2048))
            progress.advance()
    nats, correct, tokens, sizes = (
        np.array([getattr(tally, name) for tally in tallies], dtype=float)
        for name in ("nats", "correct", "tokens", "size")
    )
    if not np.isfinite(nats).all():
        raise MeasurementError("the loss on the built-in text is not finite")
    measured = {
        "nats_per_byte": (nats, sizes, False),
        "nats_per_token": (nats, tokens, False),
        "next_token_accuracy": (correct, tokens, True),
    }
    rows = []
    for metric, (numerator, denominator, higher_is_better) in measured.items():
        value, error = ratio(numerator, denominator)
        rows.append(
            {
                "metric": metric,
                "value": value,
                "standard_error": error,
                "n": len(texts),
                "higher_is_better": higher_is_better,
            }
        )
    return rows


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float]:
    """A ratio of sums over independent units, and its standard error (NaN for a single unit)."""
    n, total = len(numerator), denominator.sum()
    value = numerator.sum() / total
    if n < 2:
        return float(value), math.nan
    spread = ((numerator - value * denominator) ** 2).sum()
    return float(value), float(np.sqrt(n / (n - 1) * spread) / total)


def _tally(model: Any, tokenizer: Any, text: str, mark: int, context: int) -> _Tally:
    import torch

    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    inputs = torch.tensor([mark, *ids[:-1]], device=model.device)
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
    return _Tally(nats, correct, len(ids), len(text.encode()))
