"""All scores of a checkpoint: on held-out text, images and benchmarks, or recorded elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd

from blockcoupling.atomic import replacing
from blockcoupling.config.published import OF_OTHERS, Several, of_repository, one_each
from blockcoupling.errors import UserError
from blockcoupling.scores.kept import Kept, several
from blockcoupling.scores.table import EVALUATIONS, NOT_KEPT, Rows
from blockcoupling.sources.hub import download_results
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
    *OF_OTHERS,
    "source",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to evaluate; its weights are loaded when a score first needs them.

    Attributes:
        record: The model's record.
        device: Where to evaluate.
    """

    record: Mapping[str, Any]
    device: str = "auto"

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model, and its tokenizer or image processor."""
        return load_model(self.record, self.device)

    @cached_property
    def language_model(self) -> tuple[Any, Any]:
        """The model and its tokenizer.

        Raises:
            UserError: It does not predict next tokens.
        """
        name = f"model {self.record['name']}, checkpoint {self.record['checkpoint']}"
        remedy = "set score.heldout: false and remove the tasks of score.harness"
        if not self.record.get("causal", True):
            raise UserError(
                f"{name}: a bidirectional model does not predict the next token; {remedy}"
            )
        if self.loaded[0].get_output_embeddings() is None:
            raise UserError(
                f"{name}: its files have no head (lm_head), so it cannot predict tokens; {remedy}, "
                "or use weights that include the head"
            )
        return self.loaded


def write_scores(
    record: Mapping[str, Any] | Path | str,
    spec: Mapping[str, Any],
    out: Path | str,
    device: str = "auto",
    kept: Path | None = None,
) -> None:
    """Evaluate and write a Parquet table; see `evaluate`."""
    table = evaluate(record, spec, device, kept)
    with replacing(out) as unfinished:
        table.to_parquet(unfinished, index=False, write_page_checksum=True)


def evaluate(
    record: Mapping[str, Any] | Path | str,
    spec: Mapping[str, Any],
    device: str = "auto",
    kept: Path | None = None,
) -> pd.DataFrame:
    """Compute every score of a checkpoint.

    Args:
        record: A model's record, or its file.
        spec: `Study.score_spec(model, checkpoint)`, by key of `scores.table.EVALUATIONS`:
            `recorded` (scores by name), `published` (rows of others' results), `repository`
            (`newest` or `refuse`: read those that the model's repository holds, and what to do with
            several), `images` (held-out images for an image classifier: the fields of
            `config.images.ImagePrompts`), `heldout` (whether to evaluate the built-in held-out
            text) and `harness` (tasks of lm-evaluation-harness by name).
        device: Where to evaluate.
        kept: Directory of scores that were evaluated before; others are added to it.

    Returns:
        One row per metric: model, checkpoint, score, metric, value, standard_error (NaN if
        unknown), n (texts, images or questions that the value is the mean of; 0 for a recorded
        score), higher_is_better, the columns `OF_OTHERS` (missing or "" where this study has
        evaluated), and source (the data and versions, or where it was read).

    Raises:
        UserError: The model cannot be loaded, or does not predict what is scored.
    """
    if not isinstance(record, Mapping):
        record = read_record(record)
    checkpoint = Checkpoint(record, device)
    rows: Rows = []
    before = Kept(kept, record.get("identity") or record)
    for key in EVALUATIONS:
        if spec.get(key):
            rows += _scored(checkpoint, key, spec[key], rows, before)
    unknown = {"date": "", "retrieved": ""}
    identity = {"model": record["name"], "checkpoint": record["checkpoint"]}
    table = pd.DataFrame([identity | unknown | row for row in rows], columns=list(COLUMNS))
    types = {"n": int, "higher_is_better": bool}
    numbers = ("value", "standard_error", "few_shot", "lowest", "highest")
    types |= dict.fromkeys(numbers, float)
    return table.astype(types)


def _scored(checkpoint: Checkpoint, key: str, asked: Any, rows: Rows, kept: Kept) -> Rows:
    """The rows of one key of `scores.table.EVALUATIONS`; only what is not kept is evaluated."""
    if key in NOT_KEPT:
        return resolve_name(EVALUATIONS[key])(checkpoint, asked, rows)
    parts = dict(asked) if several(key) else {key: asked}
    found = {name: kept.read(key, name, part) for name, part in parts.items()}
    if missing := [name for name, own in found.items() if own is None]:
        left = {name: parts[name] for name in missing} if several(key) else asked
        fresh = resolve_name(EVALUATIONS[key])(checkpoint, left, rows)
        for name in missing:
            own = [row for row in fresh if row["score"] == name] if several(key) else fresh
            kept.write(key, parts[name], own)
            found[name] = own
    return [row for name in parts for row in found[name] or []]


def recorded_scores(
    checkpoint: Checkpoint, scores: Mapping[str, Mapping[str, Any]], before: Rows
) -> Rows:
    """Scores that were measured elsewhere; see `scores.table`."""
    return [{"score": name, "n": 0, **score} for name, score in scores.items()]


def published_scores(checkpoint: Checkpoint, rows: Rows, before: Rows) -> Rows:
    """Scores of others, which the study has read from their files; see `scores.table`."""
    return list(rows)


def repository_scores(checkpoint: Checkpoint, several: Several, before: Rows) -> Rows:
    """Scores that the model's repository on the hub holds; see `scores.table`."""
    record = checkpoint.record
    directory = download_results(record["id"], record["revision"])
    return [result.row() for result in one_each(of_repository(directory), several)]
