"""Tables of statistics as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blockcoupling.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd


def write_tables(tables: Mapping[str, pd.DataFrame], out: str | Path) -> dict[str, Path]:
    """Write tables as Parquet files with checksums, each complete or not at all.

    Args:
        tables: by kind of catalog entry.
        out: file of the first table; the others become KIND.parquet in the same folder.

    Returns:
        The files by kind.
    """
    first, *others = tables
    files = {first: Path(out)} | {kind: Path(out).with_name(f"{kind}.parquet") for kind in others}
    for kind, file in files.items():
        with replacing(file) as unfinished:
            tables[kind].to_parquet(unfinished, index=False, write_page_checksum=True)
    return files
