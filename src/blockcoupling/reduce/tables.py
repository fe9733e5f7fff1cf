"""From one extraction store to its tables (tidy Parquet) and mean matrices (Zarr).

Everything small is computed in one lazy pass over the store; what grows with the number of prompts
is at most a few numbers per prompt, pair, K and block. The columns: docs/schema.md.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.reduce.coupling import (
    VARIANTS,
    mean_between_blocks,
    mean_by_distance,
    miscouplings,
)
from blockcoupling.reduce.spectra import effective_rank, inverse_depth_fit, participation_ratio
from blockcoupling.reduce.trajectory import equidistance, expodistance, line_shape_score
from blockcoupling.store import open_store

logger = logging.getLogger(__name__)

DEFAULT_K = (1, 2, 5, 10, 20, 30, 50)
IDENTITY = ("model", "checkpoint", "dataset")
_AXES = ("prompt", "pair", "token", "variant", "block", "k", "distance")  # order of the rows
_ROWS = 200_000  # about how many are in memory while a table is written


def reduce_store(
    svd: Path | str,
    out_dir: Path | str,
    k: Sequence[int] = DEFAULT_K,
    variants: Sequence[str] | None = None,
    identity: Mapping[str, str] | None = None,
    *,
    workers: int | None = None,
) -> list[Path]:
    """Write coupling, locality, trajectory and spectra tables and the mean mis-coupling matrices.

    Args:
        svd: an extraction store.
        out_dir: where the tables go; each one replaces an older one when it is whole.
        k: numbers of singular vectors; those larger than the store's are left out, with a log line.
        variants: of mis-coupling; by default all that the store allows.
        identity: `model`, `checkpoint` and `dataset`, the first columns of every table; by default
            from the store's attributes.
        workers: threads; by default as many as there are cores. Memory is a few times one
            prompt's A for each.

    Returns:
        The paths written.

    Raises:
        UserError: no store there, no identity, or a k or variant that cannot be had from it.
        MeasurementError: a mis-coupling that is not finite.
    """
    import dask
    from threadpoolctl import threadpool_limits

    ds = open_store(svd)
    identity = _identity(ds, identity)
    m = miscouplings(ds, _possible(k, ds.sizes["k"]), _variants(ds, variants)).rename(K="k")
    logger.info("reducing %d prompts of %s", ds.sizes["prompt"], svd)
    # Dask runs the prompts in parallel: threads of BLAS on top of that would only compete.
    with threadpool_limits(1, "blas"), _progress(), dask.config.set(num_workers=workers):
        computed = dask.compute({**_tables(ds, m), "matrices": _matrices(m)})[0]
    tables = {name: xr.Dataset(columns) for name, columns in computed.items()}
    matrices = tables.pop("matrices")
    _demand_finite(tables["coupling"])

    out_dir = Path(out_dir)
    undefined = _count_undefined(tables["trajectory"])
    if undefined:
        logger.warning("%s", undefined)
    written = [
        _write_table(out_dir / f"{name}.parquet", table, identity) for name, table in tables.items()
    ]
    return [*written, _write_matrices(out_dir / "miscoupling.zarr", matrices, ds, identity)]


def _identity(ds: xr.Dataset, given: Mapping[str, str] | None) -> dict[str, str]:
    identity = {name: (given or ds.attrs).get(name) for name in IDENTITY}
    if missing := [name for name, value in identity.items() if not value]:
        raise UserError(f"say which {', '.join(missing)} the store is of: the tables begin with it")
    return {name: str(value) for name, value in identity.items()}


def _possible(k: Sequence[int], stored: int) -> list[int]:
    kept = [each for each in k if each <= stored]
    if left_out := [each for each in k if each > stored]:
        logger.info("K = %s left out: the store holds %d", ", ".join(map(str, left_out)), stored)
    if not kept:
        raise UserError(
            f"no K can be had: {', '.join(map(str, k))} asked for, and the store holds "
            f"{stored} singular vectors a block"
        )
    return kept


def _variants(ds: xr.Dataset, asked: Sequence[str] | None) -> list[str]:
    if asked is None:
        return [name for name, variant in VARIANTS.items() if variant.product in ds]
    return list(asked)


def _tables(ds: xr.Dataset, m: xr.DataArray) -> dict[str, dict[str, xr.DataArray]]:
    """Return, lazily, the columns of each table; their axes are its keys.

    DataArrays, not Datasets: of a Dataset in which one variable comes from another, dask.compute
    loses parts (https://github.com/pydata/xarray/issues/11329).
    """
    mean, by_distance = mean_between_blocks(m), mean_by_distance(m)
    missing = xr.full_like(ds["jacobian_norm"], np.nan)
    full = ds.get("S_full")
    return {
        "coupling": {
            "coupling": -mean,
            "miscoupling": mean,
            "adjacent": by_distance.sel(distance=1, drop=True),
        },
        "locality": {"miscoupling": by_distance},
        "trajectory": {
            "is_last": ds["token"] == ds["tokens"] - 1,
            "line_shape_score": line_shape_score(ds),
            "expodistance": expodistance(ds),
            "equidistance": equidistance(ds),
        },
        "spectra": {
            "jacobian_norm": ds["jacobian_norm"],
            "s1": ds["S"].isel(k=0, drop=True),
            "participation_ratio": participation_ratio(ds["S"]),
            "effective_rank": effective_rank(ds["S"]),
            "participation_ratio_full": missing if full is None else participation_ratio(full),
            "effective_rank_full": missing if full is None else effective_rank(full),
            "svd_residual": ds["svd_residual"],
        },
        "singular_values": {"s": ds["S"]},
        "inverse_depth_fit": {
            str(name): fit for name, fit in inverse_depth_fit(ds["S"]).data_vars.items()
        },
    }


def _matrices(m: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return, lazily, mean and spread over prompts of m, itself a mean over the prompt's pairs."""
    m = m.mean("pair").rename(k="K")
    single = m.sizes["prompt"] == 1
    return {
        "miscoupling_mean": m.mean("prompt"),
        "miscoupling_std": m.mean("prompt") * np.nan if single else m.std("prompt", ddof=1),
        "miscoupling_count": m.count("prompt"),
    }


def _demand_finite(coupling: xr.Dataset) -> None:
    real = coupling["token_in"] >= 0
    for name, values in coupling.data_vars.items():
        bad = (real & ~np.isfinite(values)).any([dim for dim in values.dims if dim != "prompt"])
        if bad.any():
            raise MeasurementError(
                f"{name} is not finite for prompt {coupling['prompt'].values[bad.values][0]}: the "
                "store is damaged; remove it and run the extraction again"
            )


def _count_undefined(trajectory: xr.Dataset) -> str | None:
    """Return a line on the tokens that have no line-shape score or expodistance, if there are."""
    real = trajectory["token"] < trajectory["tokens"]
    values = trajectory[["line_shape_score", "expodistance", "equidistance"]].to_dataarray()
    undefined = (real & ~np.isfinite(values)).any("variable").transpose("prompt", "token").values
    if not undefined.any():
        return None
    prompt, token = np.argwhere(undefined)[0]
    return (
        f"{undefined.sum()} of {int(real.sum())} tokens have a step or a state that is exactly "
        "zero or cancels, and so no line-shape score, expodistance or equidistance; the first is "
        f"token {token} of prompt {trajectory['prompt'].values[prompt]}"
    )


def _write_table(path: Path, table: xr.Dataset, identity: Mapping[str, str]) -> Path:
    """Write one row for each entry of `table` that is not padding, some prompts at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as fresh:
        writer = None
        for frame in _frames(table, identity):
            rows = pa.Table.from_pandas(frame, preserve_index=False)
            writer = writer or pq.ParquetWriter(fresh, rows.schema)
            writer.write_table(rows)
        assert writer is not None  # a store has at least one prompt
        writer.close()
    return path


def _frames(table: xr.Dataset, identity: Mapping[str, str]) -> Iterator[pd.DataFrame]:
    axes = [axis for axis in _AXES if axis in table.dims]
    keys = axes[1:] if "token" in axes else ["token_in", "token_out", *axes[2:]]
    prompts = table.sizes["prompt"]
    step = max(1, _ROWS * prompts // int(np.prod(list(table.sizes.values()))))
    for start in range(0, prompts, step):
        some = table.isel(prompt=slice(start, start + step))
        frame = some.to_dataframe(dim_order=axes).reset_index()
        real = frame["token"] < frame["tokens"] if "token" in axes else frame["token_in"] >= 0
        frame = frame.loc[real, ["prompt", *keys, *table.data_vars]]
        for position, name in enumerate(IDENTITY):
            frame.insert(position, name, identity[name])
        yield frame


def _write_matrices(
    path: Path, matrices: xr.Dataset, ds: xr.Dataset, identity: Mapping[str, str]
) -> Path:
    with replacing(path) as fresh:
        matrices.assign_attrs({**ds.attrs, **identity}).to_zarr(
            fresh, zarr_format=3, consolidated=False
        )
    return path


def _progress() -> Any:
    """Return Dask's progress bar on a terminal, nothing in a log."""
    if not sys.stderr.isatty():
        return nullcontext()
    from dask.diagnostics import ProgressBar

    return ProgressBar(out=sys.stderr)
