"""Every artifact of a study as an entry of one Intake catalog.

Each job writes one small *entry file* (:func:`write_entry`), which no other job writes;
:func:`join` builds the catalog from them, from scratch, so that no entry can be lost to a race.
Paths are relative, first to the entry file, then to the catalog (``{CATALOG_DIR}``): a study can be
moved as a whole and read again. The catalog file uses Intake's own readers only, so that plain
``intake.open_catalog`` reads every entry without this package.

Names are imported when first used, because kinds and owners of catalogs need no Intake.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "KINDS": "kinds",
    "Catalog": "catalog",
    "entry": "entries",
    "join": "catalog_file",
    "open_catalog": "catalog_file",
    "read_entry": "entries",
    "taken": "owner",
    "write_entry": "entries",
}
__all__ = [
    "KINDS",
    "Catalog",
    "entry",
    "join",
    "open_catalog",
    "read_entry",
    "taken",
    "write_entry",
]

if TYPE_CHECKING:
    from blockcoupling.catalog.catalog import Catalog
    from blockcoupling.catalog.catalog_file import join, open_catalog
    from blockcoupling.catalog.entries import entry, read_entry, write_entry
    from blockcoupling.catalog.kinds import KINDS
    from blockcoupling.catalog.owner import taken


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"blockcoupling.catalog.{_HOME[name]}"), name)
    raise AttributeError(f"module 'blockcoupling.catalog' has no attribute {name!r}")
