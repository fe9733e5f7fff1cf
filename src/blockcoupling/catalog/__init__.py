"""Every artifact of a study as an entry of one Intake catalog."""

from blockcoupling.catalog.catalog import (
    KINDS,
    Catalog,
    entry,
    join,
    open_catalog,
    read_entry,
    write_entry,
)

__all__ = ["KINDS", "Catalog", "entry", "join", "open_catalog", "read_entry", "write_entry"]
