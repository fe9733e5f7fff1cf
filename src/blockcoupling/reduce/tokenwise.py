"""From a store of compared tokens to its table. The columns: docs/schema.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from blockcoupling.computing import computed
from blockcoupling.config.variants import VARIANTS
from blockcoupling.errors import UserError
from blockcoupling.reduce.coupling import miscoupling_kernel
from blockcoupling.reduce.tables import IDENTITY, parquet_table
from blockcoupling.store.checksums import reading
from blockcoupling.store.comparisons import CHUNK, COMPARISONS, PLACES


def tabulate(
    store: Path | str,
    out: Path | str,
    k: Sequence[int],
    variants: Sequence[str],
    identity: Mapping[str, str],
) -> None:
    """Write the mis-coupling of every comparison, variant and K as a tidy table.

    Args:
        store: of compared tokens.
        out: the Parquet file.
        k: numbers of singular vectors; those larger than the store's are omitted.
        variants: of mis-coupling; those that the store lacks are omitted.
        identity: model, checkpoint, dataset.

    Raises:
        UserError: no K or variant is left.
        MeasurementError: the store is damaged.
    """
    ds = COMPARISONS.open(store)
    k = [each for each in k if each <= ds.sizes["k"]]
    variants = [name for name in variants if VARIANTS[name].product in ds]
    if not k or not variants:
        raise UserError(f"{store} has none of these K and variants")
    with parquet_table(Path(out)) as append, reading(store):
        for start in range(0, ds.sizes["comparison"], CHUNK):
            some = computed(ds.isel(comparison=slice(start, start + CHUNK)))
            append(_rows(some, k, variants, identity))


def _rows(
    ds: xr.Dataset, k: Sequence[int], variants: Sequence[str], identity: Mapping[str, str]
) -> pd.DataFrame:
    largest = max(k)
    s = ds["S"].values[:, None, :largest]
    by_variant = []
    for name in variants:
        a = ds[VARIANTS[name].product].values[:, None, None, :largest, :largest]
        # One block i and one j: (comparison, variant, K, 1, 1).
        by_variant.append(miscoupling_kernel(a, s, k, [name])[:, 0, :, 0, 0])
    values = np.stack(by_variant, axis=1)  # (comparison, variant, K)
    count, repeats = len(values), len(variants) * len(k)
    places = {name: np.repeat(ds[name].values, repeats) for name in ("prompt", "kind", *PLACES)}
    return pd.DataFrame(
        {
            **{name: np.full(count * repeats, identity[name], dtype=object) for name in IDENTITY},
            "prompt": places["prompt"],
            "comparison": places["kind"],
            **{name: places[name] for name in PLACES},
            "variant": np.tile(np.repeat(np.array(variants, dtype=object), len(k)), count),
            "k": np.tile(np.array(k), count * len(variants)),
            "miscoupling": values.ravel(),
        }
    )
