"""The table of a store of ablation damage. The columns: docs/schema.md."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from blockcoupling.reduce.tables import IDENTITY, parquet_table
from blockcoupling.store.damage import DAMAGE


def tabulate_damage(store: Path | str, out: Path | str, identity: Mapping[str, str]) -> None:
    """Write one row for every text and change.

    Args:
        store: a store of ablation damage.
        out: the Parquet file.
        identity: model, checkpoint, dataset.

    Raises:
        UserError: there is no such store.
        MeasurementError: it is damaged.
    """
    ds = DAMAGE.open(store)
    texts, changes = ds.sizes["prompt"], ds.sizes["change"]

    def of_text(name: str) -> np.ndarray:
        return np.repeat(ds[name].values, changes)

    def of_change(name: str) -> np.ndarray:
        return np.tile(ds[name].values, texts)

    frame = pd.DataFrame(
        {
            **{n: np.full(texts * changes, identity[n], dtype=object) for n in IDENTITY},
            **{name: of_text(name) for name in ("prompt", "kind", "tokens")},
            **{name: of_change(name) for name in ("treatment", "block", "block_other")},
            "kl": ds["kl"].values.ravel(),
            **({"step": ds["step"].values.ravel()} if "step" in ds else {}),
            "loss": of_text("loss"),
            "loss_change": ds["loss_change"].values.ravel(),
            "reason": of_change("reason"),
        }
    )
    with parquet_table(Path(out)) as append:
        append(frame)
