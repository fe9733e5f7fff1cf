"""The store of compared tokens: one entry for each comparison of two Jacobians of one prompt.

The meaning of each axis: docs/schema.md.
"""

import xarray as xr

from blockcoupling.store.schema import Schema, Variable

PLACES = ("block", "block_other", "token_in", "token_out", "token_in_other", "token_out_other")
CHUNK = 2048  # comparisons that are read together
_PRODUCT = ("comparison", "k", "k_other")


def _layout(data: xr.DataArray) -> dict[str, tuple[int, ...]]:
    comparisons, *rest = data.shape
    return {"chunks": (min(CHUNK, comparisons), *rest)}


COMPARISONS = Schema(
    what="a store of compared tokens",
    made_by="`blockcoupling tokenwise`",
    along="comparison",
    variables={
        "A": Variable(_PRODUCT, ("float32",), "U_jᵀ J_i V_j"),
        "A_swapped": Variable(_PRODUCT, ("float32",), "V_jᵀ J_i U_j", optional=True),
        "S": Variable(("comparison", "k"), ("float32",), "singular values of J_i"),
        "svd_residual": Variable(("comparison",), ("float32",), "residual of the SVD of J_i"),
    },
    coordinates={
        "prompt": Variable(("comparison",), ("str",), "id of the prompt"),
        "kind": Variable(("comparison",), ("str",), "which tokens are compared"),
        **{
            name: Variable(("comparison",), ("int64",), "of J_i, with `other` of J_j")
            for name in PLACES
        },
        "k": Variable(("k",), ("int64",), "1 … K", optional=True),
        "k_other": Variable(("k_other",), ("int64",), "1 … K", optional=True),
    },
    attributes={},
    on_request=("A_swapped",),
    layout=_layout,
    chunks={},
)
