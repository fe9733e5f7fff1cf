"""What a few prompts came to, one row each: the table of `blockcoupling measure`."""

import pandas as pd
import xarray as xr

from blockcoupling.config.variants import DEFAULT_VARIANT
from blockcoupling.reduce.coupling import mean_between_blocks, mean_by_distance, miscoupling
from blockcoupling.reduce.trajectory import expodistance, line_shape_score


def summary(ds: xr.Dataset, k: int, variant: str = DEFAULT_VARIANT) -> pd.DataFrame:
    """One row per prompt and pair: coupling, adjacent blocks, s_1, regularity of the last token.

    Args:
        ds: a dataset of the schema.
        k: how many singular vectors are compared.
        variant: of the mis-coupling.
    """
    m = miscoupling(ds, k=k, variant=variant)
    between, adjacent = mean_between_blocks(m), mean_by_distance(m).sel(distance=1)
    rows = []
    lss, ed = line_shape_score(ds), expodistance(ds)
    for p, prompt in enumerate(ds["prompt"].values):
        for q in range(ds.sizes["pair"]):
            t1, t2 = (int(ds[name].values[p, q]) for name in ("token_in", "token_out"))
            if t1 < 0:
                continue
            rows.append(
                {
                    "prompt": str(prompt),
                    "tokens": int(ds["tokens"].values[p]),
                    "token_in": t1,
                    "token_out": t2,
                    "coupling": -float(between[p, q]),
                    "adjacent": -float(adjacent[p, q]),
                    "s_1 (median block)": float(ds["S"][p, q, :, 0].median()),
                    "line_shape_score": float(lss[p, t2]),
                    "expodistance": float(ed[p, t2]),
                }
            )
    return pd.DataFrame(rows)
