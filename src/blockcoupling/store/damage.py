"""The store of ablation damage: the cost of every change of a model's blocks, text by text.

The meaning of each axis: docs/schema.md.
"""

import numpy as np
import xarray as xr

from blockcoupling.store.schema import Schema, Variable


def _rules(ds: xr.Dataset) -> list[str]:
    """Return a complaint where a missing number has no reason, or one that is there has one."""
    if "kl" not in ds or "reason" not in ds.variables:
        return []
    lacks = np.isnan(ds["kl"].values).any(0)
    if (lacks != (ds["reason"].values.astype(object) != "")).any():
        return ["kl: missing without a reason, or there in spite of one"]
    return []


DAMAGE = Schema(
    what="a store of ablation damage",
    made_by="`blockcoupling damage`",
    along="prompt",
    variables={
        "kl": Variable(("prompt", "change"), ("float64",), "KL divergence, nats a token"),
        "loss_change": Variable(("prompt", "change"), ("float64",), "change of the loss"),
        "loss": Variable(("prompt",), ("float64",), "loss of the whole model"),
        "step": Variable(
            ("prompt", "change"), ("float64",), "length of a displacement", True, undefined=True
        ),
    },
    coordinates={
        "prompt": Variable(("prompt",), ("str",), "id of the text"),
        "kind": Variable(("prompt",), ("str",), "prompt, passage, or question with a choice"),
        "tokens": Variable(("prompt",), ("int64",), "length of the text"),
        "treatment": Variable(("change",), ("str",), "what is done"),
        "block": Variable(("change",), ("int64",), "1 … L"),
        "block_other": Variable(("change",), ("int64",), "1 … L"),
        "reason": Variable(("change",), ("str",), "why a number is missing, else empty"),
    },
    attributes={},
    rules=_rules,
    layout=lambda data: {"chunks": data.shape},
)
