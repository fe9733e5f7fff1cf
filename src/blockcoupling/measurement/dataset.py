"""The dataset of the schema for one measured prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from blockcoupling.jacobian.decompose import Decomposition
from blockcoupling.measurement import states
from blockcoupling.measurement.prepare import READ, Prepared
from blockcoupling.measurement.record import RecordedPrompt
from blockcoupling.store.schema import plain, stamp
from blockcoupling.store.svd import CKA
from blockcoupling.transformer.images import Picture
from blockcoupling.transformer.readout import Readout
from blockcoupling.transformer.tokens import MEAN

_PAIR = ("prompt", "pair")
_BLOCK = (*_PAIR, "block")
_PRODUCTS = (*_BLOCK, "block_other", "k", "k_other")
_STATES = ("prompt", "token", "state")


def dataset_of(
    prepared: Prepared,
    recorded: RecordedPrompt,
    loss: float,
    found: Decomposition,
    parts: Mapping[str, Decomposition],
    rows: Sequence[int],
) -> xr.Dataset:
    """The dataset of the schema for one prompt.

    Args:
        prepared: the model.
        recorded: what its forward pass left behind.
        loss: the model's loss on the prompt, NaN where it has none.
        found: the decomposed Jacobians of its batch.
        parts: those of parts of the blocks, by name.
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
    variables["uv_cosine"] = ((*_BLOCK, "k"), of((found.U * found.V).sum(-2)))
    for part, own in parts.items():
        variables[f"S_{part}"] = ((*_BLOCK, "k"), of(own.S))
        variables[f"A_{part}"] = (_PRODUCTS, of(own.A))
        variables[f"jacobian_norm_{part}"] = (_BLOCK, of(own.norm, np.float64))
        variables[f"svd_residual_{part}"] = (_BLOCK, of(own.residual))
    if found.eigenvalues is not None:
        variables["eigenvalues"] = ((*_BLOCK, "k_full"), of(found.eigenvalues, np.complex64))
    if (product := found.cumulative) is not None:
        # Of one token's state on its way: not of two tokens, nor of a mean over tokens.
        own_token = np.array([a == b != MEAN for a, b in prompt.pairs])
        variables["S_cumulative"] = ((*_BLOCK, "k"), of(product.S))
        for name, matrices in product.overlaps.items():
            variables[name] = (_PRODUCTS, of(matrices))
        for name in ("S_cumulative", *product.overlaps):
            variables[name][1][:, ~own_token] = np.nan
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
    if found.S_full is not None or found.eigenvalues is not None:
        coordinates["k_full"] = np.arange(1, found.U.shape[-2] + 1)
    if (readout := prepared.readout) is not None:
        read = _read_out(readout, found.U[rows], found.V[rows])
        variables |= read
        k_read, rank = read["readout_token"][1].shape[-2:]
        coordinates |= {
            "vector": np.array(["U", "V"], dtype=object),
            "sign": np.array([1, -1]),
            "k_read": np.arange(1, k_read + 1),
            "rank": np.arange(1, rank + 1),
        }
    attributes = {"dimension": found.U.shape[-2], **_attributes(prepared, prompt)}
    return xr.Dataset(variables, coordinates, plain(attributes))


def _read_out(
    readout: Readout, U: Tensor, V: Tensor
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The top tokens of a prompt's first singular vectors: (pair, block, embed, k) each."""
    axes = (*_BLOCK, "vector", "sign", "k_read", "rank")
    vectors = torch.stack([U, V], dim=2)[..., :READ].movedim(-2, -1)
    directions = torch.stack([vectors, -vectors], dim=3)  # (pair, block, vector, sign, k, embed)
    tokens, logits = (
        values.reshape(1, *directions.shape[:-1], -1)
        for values in readout.of(directions.reshape(-1, directions.shape[-1]))
    )
    return {
        "readout_token": (axes, tokens),
        "readout_logit": (axes, logits),
        "readout_text": ((*axes, "byte"), readout.texts(tokens)),
    }


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
