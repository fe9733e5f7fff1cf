"""Parts of a long job: a small store for each, which appears whole or not at all.

A part carries the fingerprint of everything its numbers depend on, so that a job run again counts
as finished what it would measure to the same numbers, and nothing else.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.digests import json_digest
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import check, is_whole, without_seal, write_store
from blockcoupling.store.part_names import part_path

logger = logging.getLogger(__name__)

FINGERPRINT = "fingerprint"


def fingerprint(**settings: Any) -> str:
    """Return a digest of everything that a part's numbers depend on (JSON values).

    That is what becomes the store's attributes, the settings that do not, and the prompt's text.
    """
    return json_digest(settings)[:16]


def write_part(parts_dir: Path | str, name: str, ds: xr.Dataset, fingerprint: str) -> Path:
    """Write a part, whole or not at all.

    Args:
        parts_dir: directory of the parts.
        name: of the part.
        ds: what was measured, in memory.
        fingerprint: of what its numbers depend on; see `fingerprint`.
    """
    path = part_path(parts_dir, name)
    whole = {str(name): {"chunks": data.shape} for name, data in ds.data_vars.items()}
    with replacing(path) as fresh:
        write_store(ds.assign_attrs({FINGERPRINT: fingerprint}), fresh, whole)
    return path


def open_part(path: Path) -> xr.Dataset:
    """Open a part without its fingerprint: numbers stay on disk, coords come into memory.

    Raises:
        MeasurementError: it is damaged.
    """
    check(path)
    ds = xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None, cache=False)
    ds.attrs = without_seal(ds.attrs)
    ds.attrs.pop(FINGERPRINT, None)
    for variable in ds.variables.values():
        variable.encoding = {}  # the joined store has a layout of its own
    for coord in ds.coords.values():
        coord.load()
    return ds


def finished(
    parts_dir: Path | str, expected: Mapping[str, str], needed: Sequence[str] = ()
) -> set[str]:
    """Return the names of the parts that are measured, out of those expected; read every byte.

    Args:
        parts_dir: directory of the parts; it need not exist.
        expected: fingerprint by name. A part with another fingerprint comes from other settings,
            other weights or another text: it is not counted, and a line is logged.
        needed: variables that it must hold; it may hold more.
    """
    done = set()
    for name, wanted in expected.items():
        path = part_path(parts_dir, name)
        if not path.exists():
            continue
        if not is_whole(path):
            problem = "is damaged"
        elif _read_fingerprint(path) != wanted:
            problem = "is from other settings, weights or text"
        elif lacking := [each for each in needed if not (path / each).is_dir()]:
            problem = f"has no {', '.join(lacking)}"
        else:
            done.add(name)
            continue
        logger.warning("prompt %s: its store %s; measuring it again", name, problem)
    return done


def demand_finished(
    parts_dir: Path | str, expected: Mapping[str, str], needed: Sequence[str] = ()
) -> None:
    """Raise a UserError where a part that is to be joined is not measured yet."""
    missing = []
    for name, wanted in expected.items():
        path = part_path(parts_dir, name)
        if _read_fingerprint(path) != wanted or not all((path / each).is_dir() for each in needed):
            missing.append(name)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(expected)} prompts are not measured yet, the first of them "
            f"is {missing[0]}: run the extraction again"
        )


def _read_fingerprint(part: Path) -> str | None:
    """Return the fingerprint of a part; None when its metadata cannot be read."""
    try:
        return json.loads((part / "zarr.json").read_text())["attributes"].get(FINGERPRINT)
    except (OSError, ValueError, KeyError):
        return None
