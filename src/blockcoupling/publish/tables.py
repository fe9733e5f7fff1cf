"""The tables of a published study: one file a kind, over all models; matrices in long form."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from blockcoupling.catalog.columns import COLUMNS
from blockcoupling.catalog.kinds import KINDS
from blockcoupling.catalog.studies import STUDY
from blockcoupling.store.checksums import ZARR

FOLDER = "tables"
MATRICES = "miscoupling"
OVERLAPS = "overlap_matrices"
_FACETS = ("model", "checkpoint", "dataset")


class Table(NamedTuple):
    """One table that was written.

    Attributes:
        name: of its configuration.
        path: relative to the directory.
        rows: how many.
        columns: data type by name.
        meaning: what it holds.
    """

    name: str
    path: str
    rows: int
    columns: Mapping[str, str]
    meaning: str

    def of(self, column: str) -> str:
        """The meaning of a column, as far as the package says it."""
        known = COLUMNS.get(self.name, {}).get(column)
        return known.meaning if known else column.replace("_", " ")


def write(entries: Mapping[str, Mapping[str, Any]], directory: Path) -> list[Table]:
    """Write `directory/tables/NAME.parquet` for every kind of table among published entries."""
    parts: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for each in entries.values():
        for name, part in _parts(Path(each["path"]), each["metadata"]):
            study = each["metadata"].get(STUDY)
            if study is not None:
                part.insert(0, STUDY, study)
            parts[name].append(part)
    return [_write(name, parts[name], directory) for name in sorted(parts)]


def _parts(path: Path, about: Mapping[str, Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    kind = about["kind"]
    facets = {name: about[name] for name in _FACETS if name in about}
    if path.suffix == ".parquet":
        yield kind, pd.read_parquet(path)
    elif kind == "prompts":
        yield kind, pd.read_json(path, lines=True, dtype=False).assign(dataset=about["dataset"])
    elif kind == "model":
        record = pd.json_normalize(json.loads(path.read_bytes()))
        yield kind, record.loc[:, [not isinstance(v, list | dict) for v in record.iloc[0]]]
    elif kind == "miscoupling":
        with xr.open_zarr(path, **ZARR) as ds:
            for name, dims in (
                (MATRICES, {"variant", "K", "block", "block_other"}),
                (OVERLAPS, {"K", "block", "block_other"}),
            ):
                chosen = ds[[v for v in ds.data_vars if set(ds[v].dims) == dims]]
                if chosen.data_vars:
                    yield name, chosen.to_dataframe().reset_index().assign(**facets)


def _write(name: str, parts: list[pd.DataFrame], directory: Path) -> Table:
    table = pd.concat(parts, ignore_index=True)
    first = [column for column in (STUDY, *_FACETS) if column in table]
    table = table[[*first, *(column for column in table if column not in first)]]
    path = f"{FOLDER}/{name}.parquet"
    (directory / FOLDER).mkdir(exist_ok=True)
    table.to_parquet(directory / path, index=False, compression="zstd")
    columns = {str(column): str(kind) for column, kind in table.dtypes.items()}
    return Table(name, path, len(table), columns, _meaning(name))


def _meaning(name: str) -> str:
    if name == OVERLAPS:
        return "block by block overlaps, means over prompts, in long form"
    holds = KINDS[name].holds
    return f"{holds}, in long form" if name == MATRICES else holds
