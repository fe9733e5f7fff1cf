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
__all__ = list(_HOME)

if TYPE_CHECKING:
    from blockcoupling.catalog.catalog import Catalog as Catalog
    from blockcoupling.catalog.catalog_file import join as join
    from blockcoupling.catalog.catalog_file import open_catalog as open_catalog
    from blockcoupling.catalog.entries import entry as entry
    from blockcoupling.catalog.entries import read_entry as read_entry
    from blockcoupling.catalog.entries import write_entry as write_entry
    from blockcoupling.catalog.kinds import KINDS as KINDS
    from blockcoupling.catalog.owner import taken as taken


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"blockcoupling.catalog.{_HOME[name]}"), name)
    raise AttributeError(f"module 'blockcoupling.catalog' has no attribute {name!r}")
