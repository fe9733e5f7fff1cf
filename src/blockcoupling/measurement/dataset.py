"""The dataset of the schema for one measured prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from blockcoupling.jacobian.decompose import Decomposition
from blockcoupling.measurement import states
from blockcoupling.measurement.prepare import Prepared
from blockcoupling.measurement.record import RecordedPrompt
from blockcoupling.store.schema import plain, stamp
from blockcoupling.store.svd import CKA
from blockcoupling.transformer.images import Picture

_PAIR = ("prompt", "pair")
_BLOCK = (*_PAIR, "block")
_PRODUCTS = (*_BLOCK, "block_other", "k", "k_other")
_STATES = ("prompt", "token", "state")


def dataset_of(
    prepared: Prepared,
    recorded: RecordedPrompt,
    loss: float,
    found: Decomposition,
    rows: Sequence[int],
) -> xr.Dataset:
    """The dataset of the schema for one prompt.

    Args:
        prepared: the model.
        recorded: what its forward pass left behind.
        loss: the model's loss on the prompt, NaN where it has none.
        found: the decomposed Jacobians of its batch.
        rows: which of the batch's Jacobians are this prompt's.
    """
    prompt, rows = recorded.prompt, list(rows)

    def of(values: Tensor, dtype: Any = np.float32) -> np.ndarray:
        return values[rows].numpy().astype(dtype)[None]

    def per_block(values: Sequence[Any]) -> np.ndarray:
        return np.tile(np.array(values, np.float32), (1, len(rows), 1))

    # In a batch, the one-token positions come first, and are one operator.
    one_token = np.array(["one-token" in how for how in found.attention])
    by_itself = np.array([position.by_itself for position in recorded.positions])
    pca, explained = states.principal_components(recorded.states)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "S": ((*_BLOCK, "k"), of(found.S)),
        "A": (_PRODUCTS, of(found.A)),
        "jacobian_norm": (_BLOCK, of(found.norm, np.float64)),
        "jacobian_norm_error": (_BLOCK, of(found.norm_error, np.float64)),
        "svd_residual": (_BLOCK, of(found.residual)),
        "gram": ((*_STATES, "state_other"), states.gram(recorded.states)[None]),
        "pca": ((*_STATES, "component"), pca[None]),
        "pca_explained": (("prompt", "component"), explained[None]),
        "cka": (("prompt", "block"), states.neighbours_cka(recorded.states)[None]),
        "rankme": (("prompt",), np.array([states.rankme(recorded.states[:, -1])])),
        "own_loss": (("prompt",), np.array([loss])),
    }
    if found.A_swapped is not None:
        variables["A_swapped"] = (_PRODUCTS, of(found.A_swapped))
    for name, matrices in (found.overlaps or {}).items():
        variables[name] = (_PRODUCTS, of(matrices))
    if found.S_full is not None:
        variables["S_full"] = ((*_BLOCK, "k_full"), of(found.S_full))
    if found.matmul_error is not None:
        variables["matmul_error"] = (_BLOCK, of(found.matmul_error))
    if prepared.settings.vectors:
        variables["U"] = ((*_BLOCK, "embed", "k"), of(found.U))
        variables["V"] = ((*_BLOCK, "embed", "k"), of(found.V))
    variables["products"] = (_BLOCK, per_block(found.products))
    variables["matrix_free"] = (_BLOCK, per_block([how == "krylov" for how in found.methods]))
    context_apart = (by_itself[:, None] & one_token).astype(np.float32)[None]
    variables["context_apart"] = (_BLOCK, context_apart)

    tokens, count, k = len(recorded.states), len(found.methods), found.S.shape[-1]
    coordinates: dict[str, Any] = {
        "prompt": np.array([prompt.id], dtype=object),
        "pair": np.arange(len(prompt.pairs)),
        "token_in": (_PAIR, np.array([[a for a, _ in prompt.pairs]])),
        "token_out": (_PAIR, np.array([[b for _, b in prompt.pairs]])),
        **dict.fromkeys(("block", "block_other"), np.arange(1, count + 1)),
        **dict.fromkeys(("k", "k_other"), np.arange(1, k + 1)),
        "token": np.arange(tokens),
        "token_text": (("prompt", "token"), np.array([prompt.token_text], dtype=object)),
        "tokens": (("prompt",), np.array([tokens])),
        **dict.fromkeys(("state", "state_other"), np.arange(count + 1)),
        "component": np.arange(1, 3),
    }
    if not prepared.is_causal:
        coordinates["last"] = (("prompt",), np.array([prompt.places["last"][0]]))
    if found.S_full is not None:
        coordinates["k_full"] = np.arange(1, found.S_full.shape[-1] + 1)
    attributes = {"dimension": found.U.shape[-2], **_attributes(prepared, prompt)}
    return xr.Dataset(variables, coordinates, plain(attributes))


@cache  # reading them takes longer than the rest of a dataset
def versions() -> dict[str, int | str]:
    """Attributes for the versions of the schema, this package, torch and transformers."""
    return {
        **stamp(),
        "torch_version": version("torch"),
        "transformers_version": version("transformers"),
    }


def _attributes(prepared: Prepared, prompt: Any) -> dict[str, Any]:
    """Provenance of the numbers: model, settings and versions."""
    model, settings = prepared.model, prepared.settings
    weights = next(p for p in model.parameters() if p.is_floating_point())
    return {
        **versions(),
        "model_id": getattr(getattr(model, "config", None), "_name_or_path", "") or "",
        "revision": None,
        "weight_dtype": str(weights.dtype).removeprefix("torch."),
        "quantization": None,
        "attention": "eager",
        "method": settings.method,
        "tolerance": settings.tolerance,
        "matmul": settings.matmul,
        "final_norm": settings.final_norm,
        "stage": settings.stage,
        "seed": settings.seed,
        "modality": "image" if isinstance(prompt, Picture) else "text",
        "causal": prepared.is_causal,
        **CKA,
    }
