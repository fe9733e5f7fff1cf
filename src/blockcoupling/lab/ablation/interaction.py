"""What a change costs beyond the costs of its parts.

The KL divergence of skipping two blocks is nearly the sum of those of skipping each. A measure of
two blocks that is correlated with it is asked to predict two numbers of single blocks. The
interaction is what remains.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from blockcoupling.config.damage import DISPLACEMENTS, TREATMENTS


def interaction(means: pd.DataFrame) -> pd.Series:
    """Return log KL(change) − log Σ KL(part), over the parts of each change.

    The parts of a change of blocks are the ablations (`skip`) of each block that it changes: of i
    and j, of the replaced one alone, of all blocks after an early exit. The part of a displacement
    is that along the block's own first singular vector.

    Args:
        means: treatment, block, block_other and kl (mean over texts), a row for each change.

    Returns:
        NaN where a part was not measured, a KL is not above 0, or a change is its own only part.
    """
    single = means[means["block"] == means["block_other"]].set_index(["treatment", "block"])["kl"]
    last = int(means[["block", "block_other"]].to_numpy().max(initial=0))
    sums = [
        single.reindex([(part, block) for block in blocks]).sum(skipna=False)
        if (part, tuple(blocks)) != (treatment, (other,))
        else np.nan
        for treatment, part, blocks, other in _changes(means, last)
    ]
    kl, parts = means["kl"].to_numpy(float), np.array(sums, float)
    defined = (kl > 0) & (parts > 0)
    whole, of_parts = np.where(defined, kl, np.nan), np.where(defined, parts, np.nan)
    return pd.Series(np.log(whole / of_parts), means.index)


def _changes(means: pd.DataFrame, last: int) -> Iterable[tuple[str, str, list[int], int]]:
    """Treatment, the treatment of its parts, their blocks, and block_other of each change."""
    columns = (means[name] for name in ("treatment", "block", "block_other"))
    for treatment, i, j in zip(*columns, strict=True):
        if treatment in DISPLACEMENTS:
            yield treatment, "displace", [i], j
        elif treatment == "exit":
            yield treatment, "skip", list(range(i + 1, last + 1)), j
        else:
            both = {"both": [i, j], "first": [i], "second": [j]}[TREATMENTS[treatment].changed]
            yield treatment, "skip", sorted(set(both)), j
