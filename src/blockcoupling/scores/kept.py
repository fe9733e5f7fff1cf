"""Scores that were evaluated before: one score more costs its own evaluation only.

The rows of each evaluation are a small file, named after everything that they depend on but the
score's name: weights and tokenizer, what is asked, texts and images by content, and versions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from blockcoupling.atomic import replacing
from blockcoupling.config.images import ImagePrompts
from blockcoupling.config.section import parse
from blockcoupling.digests import file_digest, json_digest
from blockcoupling.scores.table import Rows
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.images import images_digest

logger = logging.getLogger(__name__)

_LIBRARIES = ("blockcoupling", "torch", "transformers", "lm_eval")


@dataclass(frozen=True)
class Kept:
    """The kept rows of one checkpoint.

    Attributes:
        directory: Directory of the files; None: nothing is kept.
        identity: What decides the model's numbers (`sources.identity`).
    """

    directory: Path | None
    identity: Mapping[str, Any]

    def read(self, key: str, name: str, asked: Any) -> Rows | None:
        """Rows of an evaluation; None if they are not kept, or damaged.

        Args:
            key: Key of `scores.table.EVALUATIONS`.
            name: Name of the score where the key has several, else the key.
            asked: What the description has for it.
        """
        if self.directory is None:
            return None
        file = self._file(self.directory, key, asked)
        try:
            digest, rows = json.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            digest, rows = None, None
        if digest != json_digest(rows):
            logger.warning("%s is damaged: evaluating %s again", file, name)
            return None
        return [{**row, "score": name if several(key) else row["score"]} for row in rows]

    def write(self, key: str, asked: Any, rows: Rows) -> None:
        """Keep the rows of an evaluation; arguments as for `read`."""
        if self.directory is not None:
            plain = json.loads(json.dumps(rows, default=lambda number: number.item()))
            with replacing(self._file(self.directory, key, asked)) as fresh:
                fresh.write_text(json.dumps([json_digest(plain), plain]) + "\n")

    def _file(self, directory: Path, key: str, asked: Any) -> Path:
        content = _content(key, asked)
        if key == "harness" and asked.get("path"):  # the score's name and the directory decide none
            asked = {**asked, "task": None, "path": Path(asked["path"]).name}
        about = [key, asked, content, self.identity, _versions()]
        return directory / f"{json_digest(about)[:32]}.json"


def several(key: str) -> bool:
    """Whether a key of `scores.table.EVALUATIONS` has several scores, by name."""
    return key == "harness"


def _content(key: str, asked: Any) -> Any:
    """Digest of the texts or images that are scored; None of those that a library brings."""
    match key:
        case "harness":
            return file_digest(asked["path"]) if asked.get("path") else None
        case "images":
            return images_digest(parse(ImagePrompts, dict(asked), "the images").images)
    return corpus().digest


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(_LIBRARIES)
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found
