"""Parts of a long job: which are finished, as files or in the joined store of an earlier run.

A part carries the fingerprint of everything its numbers depend on. A job that is run again counts
a part as finished if measuring it again would give the same numbers.

Parts are removed once they are joined, unless they hold more than the store. A note next to them
(`joined.json`) says which rows of the store hold which part; from there they become parts again
when the job is run with other prompts. The note is used only while every byte of the store is as
it was then. It includes the store's root metadata, because Snakemake deletes `zarr.json`, a
declared output, before it runs a job again.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from blockcoupling.atomic import UNFINISHED, replacing
from blockcoupling.digests import json_digest
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store.checksums import is_whole, without_seal
from blockcoupling.store.part import Part, open_part, write_part
from blockcoupling.store.part_names import NOTE, part_path

logger = logging.getLogger(__name__)

_OTHER = "is from other settings, weights or text"


def fingerprint(**settings: Any) -> str:
    """Return a digest of everything that a part's numbers depend on (JSON values).

    These are the attributes of the store, the settings that are not attributes, and the prompt's
    text.
    """
    return json_digest(settings)[:16]


def finished(
    parts_dir: Path | str, expected: Mapping[str, str], needed: Sequence[str] = ()
) -> set[str]:
    """Return the names of the parts that are measured, out of those expected.

    Every byte is read. Prompts in the joined store of an earlier run become parts again, so that
    they can be joined with others.

    Args:
        parts_dir: directory of the parts; it need not exist.
        expected: fingerprint by name. A part with another fingerprint comes from other settings,
            other weights or another text: it does not count, and a warning is logged.
        needed: variables that it must have; it may have more.
    """
    done = set()
    for name in expected:
        try:
            problem = _problem(open_part(part_path(parts_dir, name)), expected[name], needed)
        except FileNotFoundError:
            continue
        except MeasurementError:
            problem = "is damaged"
        if problem is None:
            done.add(name)
        else:
            logger.warning("prompt %s: its part %s; measuring it again", name, problem)
    left = {name: wanted for name, wanted in expected.items() if name not in done}
    return done | _restored(Path(parts_dir), left, needed)


def open_parts(
    parts_dir: Path | str, expected: Mapping[str, str], needed: Sequence[str] = ()
) -> list[Part]:
    """Open all parts that are expected, to join them.

    Raises:
        UserError: one of them is not measured yet.
        MeasurementError: one of them is damaged.
    """
    paths = {name: part_path(parts_dir, name) for name in expected}
    found = {name: open_part(path) for name, path in paths.items() if path.exists()}
    missing = [
        name
        for name, wanted in expected.items()
        if name not in found or _problem(found[name], wanted, needed)
    ]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(expected)} prompts are not measured yet, the first of them "
            f"is {missing[0]}: run the extraction again"
        )
    return list(found.values())


def _problem(part: Part, fingerprint: str, needed: Sequence[str]) -> str | None:
    if part.fingerprint != fingerprint:
        return _OTHER
    if lacking := [each for each in needed if each not in part.variables]:
        return f"has no {', '.join(lacking)}"
    return None


def remove_joined(
    parts_dir: Path | str,
    out: Path | str,
    root: str,
    along: str,
    parts: Mapping[str, Part],
    removable: Set[str],
) -> None:
    """Note where the joined store has which part, then remove the parts.

    Args:
        parts_dir: directory of the parts.
        out: the joined store.
        root: its root metadata (text of `zarr.json`).
        along: axis that parts are joined along.
        parts: parts by name, in the order of the store.
        removable: names of those that the store holds completely.
    """
    start, noted = 0, {}
    for name, part in parts.items():
        noted[name] = {"fingerprint": part.fingerprint, "start": start, "sizes": part.sizes}
        start += part.sizes[along]
    store = os.path.relpath(os.path.realpath(out), os.path.realpath(parts_dir))
    with replacing(Path(parts_dir) / NOTE) as fresh:
        note = {"store": store, "root": root, "along": along, "parts": noted}
        fresh.write_text(json.dumps([json_digest(note), note]))
    for name in removable:
        parts[name].path.unlink(missing_ok=True)


def _restored(parts_dir: Path, expected: Mapping[str, str], needed: Sequence[str]) -> set[str]:
    """Write the expected prompts that are in the joined store as parts; return their names."""
    note = _read_note(parts_dir / NOTE)
    if note is None or not (store := Path(os.path.normpath(parts_dir / note["store"]))).is_dir():
        return set()
    there = {name: note["parts"][name] for name in expected if name in note["parts"]}
    for name in [name for name, at in there.items() if at["fingerprint"] != expected[name]]:
        logger.warning("prompt %s in %s %s; measuring it again", name, store, _OTHER)
        del there[name]
    if not there:
        return set()
    with _as_noted(store, note["root"], parts_dir) as whole:
        if not is_whole(whole):
            logger.warning("%s has changed since it was joined: measuring again", store)
            return set()
        ds = xr.open_zarr(whole, consolidated=False, chunks=None)
        if lacking := [each for each in needed if each not in ds]:
            logger.warning("%s has no %s; measuring again", store, ", ".join(lacking))
            return set()
        ds.attrs = without_seal(ds.attrs)
        for name, at in there.items():
            rows = slice(at["start"], at["start"] + at["sizes"][note["along"]])
            own = {axis: slice(at["sizes"].get(axis)) for axis in ds.dims}
            part = ds.isel(own | {note["along"]: rows})
            write_part(parts_dir, name, part, at["fingerprint"])
    return set(there)


def _read_note(path: Path) -> dict[str, Any] | None:
    """Return the note; None where there is none, or it is damaged."""
    try:
        digest, note = json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return note if digest == json_digest(note) else None


@contextmanager
def _as_noted(store: Path, root: str, parts_dir: Path) -> Iterator[Path]:
    """Yield a store of links to the arrays of a joined store, with the noted root metadata."""
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=parts_dir) as place:
        whole = Path(place)
        for array in store.iterdir():
            if array.is_dir():
                (whole / array.name).symlink_to(array.absolute())
        (whole / "zarr.json").write_text(root)
        yield whole
