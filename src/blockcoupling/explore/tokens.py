"""Payload of one measurement's comparison of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockcoupling.errors import UserError
from blockcoupling.explore.pairs import store
from blockcoupling.store.comparisons import PLACES

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_ROW = ["prompt", "comparison", *PLACES]


def tokens(catalog: Catalog, model: str, checkpoint: str, dataset: str) -> dict[str, Any]:
    """Return m between tokens of the prompts that were compared.

    Returns:
        `rows`: prompt, comparison, blocks and tokens of each; `m`: (row, variant, K); `ks`,
        `variants`; `texts`: by prompt, the text of each token, where the store has it.

    Raises:
        UserError: no tokens of it were compared, or the table cannot be read.
    """
    table = catalog.one(
        kind="tokenwise", model=model, checkpoint=checkpoint, dataset=dataset
    ).read()
    wide = table.pivot_table(
        index=_ROW, columns=["variant", "k"], values="miscoupling", sort=False, dropna=False
    )
    variants = table["variant"].unique().tolist()
    ks = sorted(table["k"].unique().tolist())
    wide = wide.dropna(how="all").reindex(columns=[(v, k) for v in variants for k in ks])
    rows = wide.index.to_frame(index=False)
    try:
        measured = store(catalog, model, checkpoint, dataset)
    except UserError:  # a catalog of tables only: tokens then have numbers, not texts
        measured = None
    texts = {}
    if measured is not None and "token_text" in measured:
        for prompt in rows["prompt"].unique():
            listed = measured["token_text"].sel(prompt=prompt).to_numpy()
            texts[str(prompt)] = [str(each) for each in listed]
    return {
        "rows": rows,
        "variants": variants,
        "ks": ks,
        "m": wide.to_numpy(float).reshape(len(rows), len(variants), len(ks)),
        "texts": texts,
    }
