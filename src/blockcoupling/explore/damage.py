"""Payload of one measurement's ablation damage, means over prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_CHANGE = ["kind", "treatment", "block", "block_other"]
_STATISTIC = ["treatment", "blocks", "outcome", "variant", "k", "rho", "p", "entries"]


def damage(catalog: Catalog, model: str, checkpoint: str, dataset: str) -> dict[str, Any]:
    """Return what every change of blocks does to the model's output.

    Returns:
        `changes`: kind (of text: prompt or heldout), treatment, block, block_other, mean kl and
        loss_change, texts (their number), reason (why a change was impossible); `statistics`: the
        study's rank correlations of damage with m: treatment, blocks, outcome, variant, k, rho, p.

    Raises:
        UserError: this measurement has no ablation, or the table cannot be read.
    """
    table = catalog.one(kind="damage", model=model, checkpoint=checkpoint, dataset=dataset).read()
    grouped = table.groupby(_CHANGE, as_index=False, sort=True)
    changes = grouped.agg(
        kl=("kl", "mean"),
        loss_change=("loss_change", "mean"),
        texts=("prompt", "nunique"),
        reason=("reason", "first"),
    )
    kinds = {str(each.metadata["kind"]) for each in catalog.entries.values()}
    statistics = pd.DataFrame(columns=_STATISTIC)
    if "damage_statistics" in kinds:
        found = catalog.search(kind="damage_statistics").frame()
        of_m = found["predictor"].eq("miscoupling") & found["given"].fillna("").eq("")
        own = found["model"].eq(model) & found["checkpoint"].eq(checkpoint)
        statistics = found.loc[of_m & own, _STATISTIC]
    return {"changes": changes, "statistics": statistics}
