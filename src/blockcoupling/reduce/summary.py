"""What a few prompts came to, one row each: the table of `blockcoupling measure`."""

import numpy as np
import pandas as pd
import xarray as xr

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.config.variants import DEFAULT_VARIANT
from blockcoupling.reduce.chance import excess
from blockcoupling.reduce.coupling import mean_between_blocks, mean_by_distance, miscoupling
from blockcoupling.reduce.overlap import overlaps
from blockcoupling.reduce.trajectory import expodistance, line_shape_score
from blockcoupling.reduce.width import dimension
from blockcoupling.store.svd import NO_PAIR


def summary(ds: xr.Dataset, k: int, variant: str = DEFAULT_VARIANT) -> pd.DataFrame:
    """One row per prompt and pair: coupling, overlaps, s_1, regularity of the last token.

    `excess` is how far coupling is above chance, 1 − m/m_chance, and the overlaps are those that
    the dataset holds; both are means over pairs of blocks.

    Args:
        ds: a dataset of the schema.
        k: how many singular vectors are compared.
        variant: of the mis-coupling.
    """
    m = miscoupling(ds, k=k, variant=variant)
    between, adjacent = mean_between_blocks(m), mean_by_distance(m).sel(distance=1)
    known = dimension(ds) is not None  # which chance depends on
    above = mean_between_blocks(excess(ds, k, variant) if known else xr.full_like(m, np.nan))
    shared = {
        name: mean_between_blocks(values.isel(K=0), earlier=OVERLAPS[name].earlier)
        for name, values in overlaps(ds, [k]).items()
    }
    rows = []
    lss, ed = line_shape_score(ds), expodistance(ds)
    for p, prompt in enumerate(ds["prompt"].values):
        for q in range(ds.sizes["pair"]):
            t1, t2 = (int(ds[name].values[p, q]) for name in ("token_in", "token_out"))
            if t1 == NO_PAIR:
                continue
            one = t2 >= 0  # the mean over patches has no way of its own through the blocks
            rows.append(
                {
                    "prompt": str(prompt),
                    "tokens": int(ds["tokens"].values[p]),
                    "token_in": t1,
                    "token_out": t2,
                    "coupling": -float(between[p, q]),
                    "adjacent": -float(adjacent[p, q]),
                    "excess": float(above[p, q]),
                    **{name: float(values[p, q]) for name, values in shared.items()},
                    "s_1 (median block)": float(ds["S"][p, q, :, 0].median()),
                    "line_shape_score": float(lss[p, t2]) if one else np.nan,
                    "expodistance": float(ed[p, t2]) if one else np.nan,
                }
            )
    return pd.DataFrame(rows)
