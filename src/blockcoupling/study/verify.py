"""Check that every artifact of a study is still what was entered in its catalog.

Every byte is read and compared with the digest in the entry and with the checksums of the format:
those of metadata and chunks of a Zarr store, those of pages of a Parquet file. Artifacts are read
one after the other, stores by chunks (or shards), so that memory does not grow with them.

What artifacts were made from is checked too, as far as it is in the results and has no entry of
its own: checkpoints of models trained here, records of models, catalogs of the stages before.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockcoupling.catalog.entries import MADE
from blockcoupling.digests import file_digest
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.sources.identity import changed_content, content_identity
from blockcoupling.store import checksums

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

RIGHT, UNCHECKED = "right", "not checked"
MISSING, DAMAGED, CHANGED, REFUSED = "missing", "damaged", "changed", "not allowed"

_WRONG = (MISSING, DAMAGED, CHANGED, REFUSED)
_SHOWN = 3  # faults of one store


@dataclass(frozen=True)
class Verdict:
    """The result for one entry.

    Attributes:
        entry: Its name.
        status: `right`; `not checked`: its entry has no digest, and it can be read; `missing`;
            `damaged`: by its own checksums or format; `changed`: not damaged, but not the artifact
            that was entered; `not allowed`: its path is outside of the study.
        path: The artifact's.
        reason: What is wrong; for a store, with which of its files.
    """

    entry: str
    status: str
    path: Path | None = None
    reason: str = ""

    @property
    def wrong(self) -> bool:
        """Whether it has to be made again."""
        return self.status in _WRONG

    @property
    def remove(self) -> str | None:
        """The command that removes it, after which the study makes it again."""
        if self.status not in (DAMAGED, CHANGED) or self.path is None:
            return None
        return f"rm {'-r ' * self.path.is_dir()}{shlex.quote(str(self.path))}"


def verify_study(
    catalog: Catalog, advance: Callable[[str], None] = lambda _: None
) -> Iterator[Verdict]:
    """Check the entries, in the order of their names; then what they were made from, if wrong.

    Args:
        catalog: The study's.
        advance: Called with the name of each entry that was checked.
    """
    own = set[Path | None]()
    for name in catalog:
        verdict = _verdict(catalog, name)
        own.add(verdict.path)
        yield verdict
        advance(name)
    if isinstance(results := catalog.metadata.get("results"), str):  # none if joined by hand
        place = Path(str(catalog.user_parameters["CATALOG_PATH"])).absolute().parent / results
        for name in catalog:
            for verdict in _made_from(catalog, name, Path(os.path.realpath(place)), own):
                own.add(verdict.path)
                yield verdict


def _made_from(
    catalog: Catalog, name: str, results: Path, known: set[Path | None]
) -> Iterator[Verdict]:
    """What is wrong with files in the results that an artifact was made from.

    Args:
        catalog: The catalog.
        name: The name of its entry.
        results: Directory of the results.
        known: Files that have a verdict already.
    """
    try:
        path, made = catalog.path(name), catalog.entries[name].metadata[MADE]
        inputs, model = made["inputs"].values(), made.get("model", {})
        wanted = {Path(os.path.normpath(path.parent / each["path"])): each for each in inputs}
    except (UserError, KeyError, TypeError, AttributeError):
        return  # said of the entry itself, or entered by hand
    for where, each in wanted.items():
        if where in known or not (where.is_relative_to(results) and catalog.allows(where)):
            continue
        if where.exists() and checksums.digest(where) != each.get("digest"):
            yield Verdict(name, CHANGED, where, "it has changed since this was made from it")
    if catalog.entries[name].metadata["kind"] == "model" and model.get("source") == "train":
        yield from _checkpoint(name, model, results)


def _checkpoint(name: str, model: Mapping[str, Any], results: Path) -> Iterator[Verdict]:
    """What is wrong with the files of a checkpoint that was trained here; each is read."""
    place = results / "checkpoints" / str(model.get("name")) / str(model.get("checkpoint"))
    if not place.is_dir():
        yield Verdict(name, MISSING, place, "the checkpoint is missing")
        return
    try:
        changed = changed_content(model, content_identity(model, place, file_digest))
        facts = json.loads((place / "training.json").read_bytes())
    except (UserError, OSError, ValueError) as error:
        yield Verdict(name, DAMAGED, place, f"the checkpoint cannot be read ({error})")
        return
    changed += ["training.json"] * (facts != model.get("training"))
    if changed:
        reason = f"{' and '.join(changed)} of the checkpoint differ from what was measured"
        yield Verdict(name, CHANGED, place, reason)


def _verdict(catalog: Catalog, name: str) -> Verdict:
    try:
        path = catalog.path(name)
    except UserError as refusal:
        return Verdict(name, REFUSED, reason=str(refusal).removeprefix(f"{name} "))
    entered = catalog.entries[name].metadata.get("digest")
    try:
        if not path.exists():
            return Verdict(name, MISSING, path, "it is missing")
        if path.suffix == ".zarr":
            faults = _store(path)
        else:
            faults = [] if path.is_file() else ["it is not a file"]
        if not faults and entered is not None:
            if checksums.digest(path) == entered:
                return Verdict(name, RIGHT, path)
            if not (faults := _unreadable(path)):
                reason = "it differs from what was entered in the catalog"
                return Verdict(name, CHANGED, path, reason)
        faults = faults or _unreadable(path)
    except OSError as error:
        faults = [f"it cannot be read ({error.strerror})"]
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        return Verdict(name, DAMAGED, path, "; ".join(faults[:_SHOWN]) + more)
    return Verdict(name, UNCHECKED, path, "its entry has no digest")


def _store(path: Path) -> list[str]:
    if not (path / "zarr.json").is_file():
        return ["zarr.json is missing"]
    try:
        return checksums.damage(path)
    except MeasurementError:
        return ["zarr.json is not the metadata of a Zarr group"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Metadata of an array, in a store that is not sealed.
        return [f"its metadata cannot be read ({type(error).__name__}: {error})"]


def _unreadable(path: Path) -> list[str]:
    """Faults that a file's own format shows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path, page_checksum_verification=True) as table:
                for _ in table.iter_batches():
                    pass
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for line in filter(str.strip, lines):
                    json.loads(line)
    except (pa.ArrowException, OSError, ValueError) as error:
        return [f"it cannot be read ({' '.join(str(error).split())[:200]})"]
    return []


# -------------------------------------------------------------------------------------- as text


def summary(counts: Counter[str]) -> str:
    """The results in one line."""
    total = counts.total()
    if counts[RIGHT] == total:
        return f"{total} artifacts: all unchanged"
    found = [f"{counts[each]} {each}" for each in (RIGHT, *_WRONG, UNCHECKED) if counts[each]]
    return f"{total} artifacts: {', '.join(found)}"


def as_text(verdict: Verdict) -> str:
    """The entry, its file, and what is wrong with it."""
    where = f"\n  {verdict.path}" if verdict.path else ""
    return f"{verdict.status}: {verdict.entry}{where}\n  {verdict.reason}"


def how_to_make_again(verdicts: Sequence[Verdict], catalog: Catalog) -> str:
    """The commands that make wrong artifacts again; empty if none can be."""
    if all(verdict.status == REFUSED for verdict in verdicts):
        return ""
    commands = [verdict.remove for verdict in verdicts if verdict.remove]
    study = catalog.metadata.get("study")
    whose = f"the study {study!r}" if study else "the study"
    return "\n".join(
        [
            f"To make them again, type in the directory that {whose} was run in:",
            *(f"  {command}" for command in commands),
            f"  {_run_again(catalog)}     # with the same profile",
        ]
    )


def _run_again(catalog: Catalog) -> str:
    """The command that made the study, with all of its configuration."""
    if isinstance(command := catalog.metadata.get("command"), str):
        return command
    given = catalog.metadata.get("configuration")  # none if the catalog was joined by hand
    return (
        f"snakemake --configfile {shlex.quote(given) if isinstance(given, str) else 'CONFIG.yaml'}"
    )


def as_json(counts: Counter[str], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The results as JSON: how many of each, and every entry that is not right."""
    return {
        "artifacts": counts.total(),
        **{each.replace(" ", "_"): counts[each] for each in (RIGHT, UNCHECKED, *_WRONG)},
        "entries": [
            {
                **asdict(verdict),
                "path": str(verdict.path) if verdict.path else None,
                "remove": verdict.remove,
            }
            for verdict in verdicts
        ],
    }
