"""From one extraction store to its tables (tidy Parquet) and mean matrices (Zarr).

Some prompts at a time are read lazily, reduced in parallel and appended, so that memory does not
grow with their number. The columns of the tables: docs/schema.md.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.config.artifacts import TABLES
from blockcoupling.config.choices import TABULATED_K
from blockcoupling.config.overlaps import CUMULATIVE, OVERLAPS
from blockcoupling.config.variants import VARIANTS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.progress import Progress
from blockcoupling.reduce import chunks, whole_prompt
from blockcoupling.reduce.chance import above_chance, chances
from blockcoupling.reduce.coupling import (
    idle_blocks,
    mean_between_blocks,
    mean_by_distance,
    miscouplings,
    pairs_of_blocks,
)
from blockcoupling.reduce.eigenvalues import departure_from_normality, spectral_abscissa
from blockcoupling.reduce.engine import Engine, running
from blockcoupling.reduce.labels import pair_labels
from blockcoupling.reduce.overlap import above_chance as overlap_above_chance
from blockcoupling.reduce.overlap import overlap_by_chance, overlaps, with_meaning
from blockcoupling.reduce.spectra import effective_rank, inverse_depth_fit, participation_ratio
from blockcoupling.reduce.trajectory import equidistance, expodistance, line_shape_score
from blockcoupling.reduce.width import dimension
from blockcoupling.store.checksums import reading, write_store
from blockcoupling.store.svd import NO_PAIR, last_token, open_store

logger = logging.getLogger(__name__)

IDENTITY = ("model", "checkpoint", "dataset")
_AXES = ("prompt", "pair", "token", "variant", "block", "k", "distance")  # order of the rows


def reduce_store(
    svd: Path | str,
    out_dir: Path | str,
    k: Sequence[int] = TABULATED_K,
    variants: Sequence[str] | None = None,
    identity: Mapping[str, str] | None = None,
    *,
    engine: Engine | None = None,
) -> list[Path]:
    """Write coupling, overlap, locality, … tables and the mean matrices of m and the overlaps.

    Args:
        svd: an extraction store.
        out_dir: where the tables go; each one replaces an older one when it is whole.
        k: numbers of singular vectors; those larger than the store's are omitted, with a log line.
        variants: of mis-coupling; by default all that the store allows.
        identity: `model`, `checkpoint` and `dataset`, the first columns of every table; what is
            not given comes from the store's attributes.
        engine: what calculates; by default as many threads as there are cores. Memory is a few
            times one prompt's A for each. Whatever it is, the numbers are the same.

    Returns:
        The paths written.

    Raises:
        UserError: no store there, no identity, or a k or variant that it lacks; an engine that
            is not available here.
        MeasurementError: a mis-coupling that is not finite, or a store that is damaged.
    """
    svd = Path(svd).absolute()  # workers may be elsewhere
    ds = open_store(svd, chunks.prompts_of_a_chunk)
    identity = _identity(ds, identity)
    k = _possible(k, ds.sizes["k"])
    if variants is None:
        variants = [name for name, variant in VARIANTS.items() if variant.product in ds]
    places = pair_labels(ds)
    out_dir, prompts = Path(out_dir), ds.sizes["prompt"]
    matrices, undefined, idle = defaultdict[str, _Moments](_Moments), [], Counter[int]()
    with (
        ExitStack() as files,
        reading(svd),
        running(engine or Engine(), chunks.BATCH // max(ds["A"].chunksizes["prompt"])) as compute,
        Progress(prompts, "reducing") as progress,
    ):
        paths = {name: out_dir / f"{name}.parquet" for name in TABLES}
        append = {name: files.enter_context(parquet_table(path)) for name, path in paths.items()}
        batches = (
            ds.isel(prompt=slice(n, n + chunks.BATCH)) for n in range(0, prompts, chunks.BATCH)
        )
        lazy = (_lazy(some, k, variants, bool(places)) for some in batches)
        for columns, means in compute(lazy):
            tables = {name: xr.Dataset(of_table) for name, of_table in columns.items()}
            _demand_finite(tables["coupling"])
            for name, table in tables.items():
                append[name](_frame(table, identity))
            for name, mean in means.items():
                matrices[name].add(mean)
            undefined += _undefined(tables["trajectory"])
            idle.update(_idle(tables["singular_values"]["s"]))
            for _ in range(tables["coupling"].sizes["prompt"]):
                progress.advance()
    if whole_prompt.has_biased_cka(ds):
        logger.warning(
            "%s was measured by an earlier version, whose CKA is biased where tokens are few: the "
            "column `cka` is empty. To fill it, remove the store and measure again",
            svd,
        )
    if undefined:
        logger.warning(
            "%d tokens have a step or a state that is exactly zero, or directions that cancel, and "
            "so no finite line-shape score, expodistance or equidistance; the first is %s",
            len(undefined),
            undefined[0],
        )
    for block, count in sorted(idle.items()):
        logger.warning(
            "block %d has a Jacobian that is exactly zero for %d of its prompts and pairs of "
            "tokens: its mis-coupling with others is undefined there, and coupling is the mean "
            "over the other pairs of blocks (their number: column `pairs`)",
            block,
            count,
        )
    path = out_dir / "miscoupling.zarr"
    with replacing(path) as fresh:
        result = xr.merge([of.dataset(name) for name, of in matrices.items()])
        if places:
            result = result.assign_coords(tokens=("pair", np.array(places, dtype=object)))
        result = result.assign_attrs({**ds.attrs, **identity})
        write_store(result, fresh)
    return [*paths.values(), path]


def _identity(ds: xr.Dataset, given: Mapping[str, str] | None) -> dict[str, str]:
    known = {**ds.attrs, **(given or {})}
    identity = {name: known.get(name) for name in IDENTITY}
    if missing := [name for name, value in identity.items() if not value]:
        raise UserError(f"say which {', '.join(missing)} the store is of: the tables begin with it")
    return {name: str(value) for name, value in identity.items()}


def _possible(k: Sequence[int], stored: int) -> list[int]:
    kept = [each for each in k if each <= stored]
    if left_out := [each for each in k if each > stored]:
        logger.info("K = %s omitted: the store has %d", ", ".join(map(str, left_out)), stored)
    if not kept:
        raise UserError(
            f"the store lacks K = {', '.join(map(str, k))}: it has {stored} singular vectors "
            "per block"
        )
    return kept


def _lazy(
    ds: xr.Dataset, k: Sequence[int], variants: Sequence[str], apart: bool
) -> tuple[dict[str, dict[str, xr.DataArray]], dict[str, xr.DataArray]]:
    """Return, lazily, the tables of some prompts, and matrices of each.

    Matrices are means over a prompt's pairs of tokens; with `apart`, of each pair, too.
    """
    m, shared = miscouplings(ds, k, variants), overlaps(ds, k)
    more = overlaps(ds, k, CUMULATIVE)
    between = {"miscoupling": m, **{n: with_meaning(o, n) for n, o in {**shared, **more}.items()}}
    # DataArrays, not Datasets: of a Dataset in which one variable comes from another, dask.compute
    # loses parts (https://github.com/pydata/xarray/issues/11329).
    others = {"overlap": _overlap_columns(ds, k, shared), "whole_prompt": whole_prompt.columns(ds)}
    matrices = {name: values.mean("pair") for name, values in between.items()}
    if apart:
        matrices["miscoupling_by_pair"] = m.drop_vars(("token_in", "token_out"), errors="ignore")
    return _columns(ds, m.rename(K="k")) | others, matrices


def _columns(ds: xr.Dataset, m: xr.DataArray) -> dict[str, dict[str, xr.DataArray]]:
    """Return, lazily, the columns of each of `TABLES`; their axes are its keys."""
    mean, by_distance = mean_between_blocks(m), mean_by_distance(m)
    missing = xr.full_like(ds["jacobian_norm"], np.nan)  # for what was not recorded
    full = ds.get("S_full")
    if dimension(ds) is None:  # a store of an older version
        by_chance = xr.full_like(m.isel(block_other=0, drop=True), np.nan)
    else:
        names, numbers = m["variant"].values.tolist(), m["k"].values.tolist()
        by_chance = chances(ds, numbers, names).rename(K="k")
    return {
        "coupling": {
            "coupling": -mean,
            "miscoupling": mean,
            "adjacent": by_distance.sel(distance=1, drop=True),
            "pairs": _pairs(ds, m["variant"].values.tolist()),
            "chance": mean_between_blocks(0 * m + by_chance),  # over the pairs that have an m
            "excess": mean_between_blocks(above_chance(m, by_chance)),
        },
        "locality": {"miscoupling": by_distance},
        "trajectory": {
            "is_last": ds["token"] == last_token(ds),
            "line_shape_score": line_shape_score(ds),
            "expodistance": expodistance(ds),
            "equidistance": equidistance(ds),
        },
        "spectra": {
            "jacobian_norm": ds["jacobian_norm"],
            "jacobian_norm_error": ds.get("jacobian_norm_error", missing),
            "s1": ds["S"].isel(k=0, drop=True),
            "participation_ratio": participation_ratio(ds["S"]),
            "effective_rank": effective_rank(ds["S"]),
            "participation_ratio_full": missing if full is None else participation_ratio(full),
            "effective_rank_full": missing if full is None else effective_rank(full),
            "svd_residual": ds["svd_residual"],
            "spectral_abscissa": spectral_abscissa(ds) if "eigenvalues" in ds else missing,
            "departure_from_normality": departure_from_normality(ds)
            if "eigenvalues" in ds
            else missing,
        },
        "singular_values": {
            "s": ds["S"],
            "uv_cosine": ds.get("uv_cosine", xr.full_like(ds["S"], np.nan)),
            "s_cumulative": ds.get("S_cumulative", xr.full_like(ds["S"], np.nan)),
        },
        "inverse_depth_fit": {
            str(name): fit for name, fit in inverse_depth_fit(ds["S"]).data_vars.items()
        },
    }


def _pairs(ds: xr.Dataset, variants: Sequence[str]) -> xr.DataArray:
    """Return how many pairs of blocks have a mis-coupling in each variant."""
    kinds = {VARIANTS[name].of_part("S") for name in variants}
    if kinds == {"S"}:
        return pairs_of_blocks(ds["S"])
    found = {kind: pairs_of_blocks(ds[kind]) for kind in kinds}
    each = [found[VARIANTS[name].of_part("S")] for name in variants]
    return xr.concat(each, xr.DataArray(np.array(variants, object), dims="variant", name="variant"))


def _overlap_columns(
    ds: xr.Dataset, k: Sequence[int], shared: Mapping[str, xr.DataArray]
) -> dict[str, xr.DataArray]:
    """Return, lazily, the columns about overlaps; those that the store does not hold are empty."""
    empty = xr.full_like(ds["S"].isel(block=0, k=0, drop=True), np.nan, dtype=np.float64)
    empty = empty.expand_dims(k=list(k))
    chance = empty
    if dimension(ds) is not None:
        chance = empty.fillna(0) + overlap_by_chance(ds, k).rename(K="k")
    means = {
        name: mean_between_blocks(shared[name].rename(K="k"), earlier=each.earlier)
        if name in shared
        else empty
        for name, each in OVERLAPS.items()
    }
    return {
        **means,
        **{f"{name}_excess": overlap_above_chance(mean, chance) for name, mean in means.items()},
        "chance": chance,
    }


def _demand_finite(coupling: xr.Dataset) -> None:
    """Refuse what is not finite, unless fewer than two blocks have a Jacobian that is not 0."""
    real = (coupling["token_in"] != NO_PAIR) & (coupling["pairs"] > 0)
    bad = real & ~np.isfinite(coupling["miscoupling"])
    if bad.any():
        prompt = bad["prompt"].values[bad.any([dim for dim in bad.dims if dim != "prompt"])][0]
        raise MeasurementError(
            f"mis-coupling is not finite for prompt {prompt}: the store is damaged; remove it and "
            "run the extraction again"
        )


def _idle(s: xr.DataArray) -> list[int]:
    """Return the block of every Jacobian that is exactly zero."""
    idle = idle_blocks(s).transpose(..., "block").values
    return s["block"].values[np.argwhere(idle)[:, -1]].tolist()


def _undefined(trajectory: xr.Dataset) -> list[str]:
    """Return names of the tokens for which a measure of regularity is not finite."""
    real = trajectory["token"] < trajectory["tokens"]
    values = trajectory[["line_shape_score", "expodistance", "equidistance"]].to_dataarray()
    bad = (real & ~np.isfinite(values)).any("variable").transpose("prompt", "token").values
    return [
        f"token {token} of prompt {trajectory['prompt'].values[prompt]}"
        for prompt, token in np.argwhere(bad)
    ]


class _Moments:
    """Mean and spread over prompts that come some at a time (Chan, Golub & LeVeque, 1983).

    Every entry of the matrices over the prompts that have it.
    """

    def __init__(self) -> None:
        self.count = xr.DataArray(0)
        self.mean = xr.DataArray(0.0)
        self.squares = xr.DataArray(0.0)  # sum of squared deviations from the mean

    def add(self, m: xr.DataArray) -> None:
        number, mean = m.count("prompt"), m.mean("prompt")
        total, shift = self.count + number, (mean - self.mean).where(number > 0, 0)
        some = total.where(total > 0, 1)
        between = shift**2 * (self.count * number / some)
        self.squares = self.squares + ((m - mean) ** 2).sum("prompt") + between
        self.mean = self.mean + shift * (number / some)
        self.count = total

    def dataset(self, name: str) -> xr.Dataset:
        spread = np.sqrt(self.squares / (self.count - 1).where(self.count > 1))
        return xr.Dataset(
            {
                f"{name}_mean": self.mean.where(self.count > 0),
                f"{name}_std": spread,
                f"{name}_count": self.count,
            }
        )


def _frame(table: xr.Dataset, identity: Mapping[str, str]) -> pd.DataFrame:
    """Return one row for each entry of `table` that is not padding."""
    axes = [axis for axis in _AXES if axis in table.dims]
    keys = ["token_in", "token_out", *axes[2:]] if "pair" in axes else axes[1:]
    frame = table.to_dataframe(dim_order=axes).reset_index()
    if "token" in axes:
        frame = frame[frame["token"] < frame["tokens"]]
    elif "pair" in axes:
        frame = frame[frame["token_in"] != NO_PAIR]
    frame = frame[["prompt", *keys, *table.data_vars]]
    for position, name in enumerate(IDENTITY):
        frame.insert(position, name, identity[name])
    return frame


@contextmanager
def parquet_table(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that appends rows to a Parquet file, which appears when all are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as fresh, ExitStack() as opened:
        writer = None

        def append(frame: pd.DataFrame) -> None:
            nonlocal writer
            rows = pa.Table.from_pandas(frame, preserve_index=False)
            writer = writer or opened.enter_context(
                pq.ParquetWriter(fresh, rows.schema, write_page_checksum=True)
            )
            writer.write_table(rows)

        yield append
