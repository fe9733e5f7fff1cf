"""What was measured of a prompt, as a dataset of the schema."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from torch import Tensor, nn

from blockcoupling.jacobian.decompose import Decomposition
from blockcoupling.measurement.points import RecordedPrompt
from blockcoupling.store.schema import plain, stamp

if TYPE_CHECKING:
    from blockcoupling.config.measurement import Settings


def dataset_of(
    recorded: RecordedPrompt,
    loss: float,
    found: Decomposition,
    rows: list[int],
    vectors: bool,
    attributes: dict[str, Any],
) -> xr.Dataset:
    """The dataset of the schema for one prompt.

    Args:
        recorded: what passing it left behind.
        loss: the model's own on it, NaN where there is none.
        found: what the Jacobians of its batch gave.
        rows: which of the batch's Jacobians are this prompt's.
        vectors: keep U and V.
        attributes: of the dataset.
    """
    prompt = recorded.prompt
    pairs = [(point.token_in, point.token_out) for point in recorded.points]
    block = ("prompt", "pair", "block")

    def of(values: Tensor, dtype: Any = np.float32) -> np.ndarray:
        return values[rows].numpy().astype(dtype)[None]

    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "S": ((*block, "k"), of(found.S)),
        "A": ((*block, "block_other", "k", "k_other"), of(found.A)),
        "jacobian_norm": (block, of(found.norm, np.float64)),
        "jacobian_norm_error": (block, of(found.norm_error, np.float64)),
        "svd_residual": (block, of(found.residual)),
        "gram": (("prompt", "token", "state", "state_other"), recorded.gram[None]),
        "pca": (
            ("prompt", "token", "state", "component"),
            recorded.pca[None],
        ),
        "pca_explained": (("prompt", "component"), recorded.explained[None]),
        "cka": (("prompt", "block"), recorded.cka[None]),
        "rankme": (("prompt",), np.array([recorded.rankme])),
        "own_loss": (("prompt",), np.array([loss])),
    }
    if found.A_swapped is not None:
        variables["A_swapped"] = (variables["A"][0], of(found.A_swapped))
    for name, matrices in (found.overlaps or {}).items():
        variables[name] = (variables["A"][0], of(matrices))
    if found.S_full is not None:
        variables["S_full"] = ((*block, "k_full"), of(found.S_full))
    if found.matmul_error is not None:
        variables["matmul_error"] = (block, of(found.matmul_error))
    if vectors:
        variables["U"] = ((*block, "embed", "k"), of(found.U))
        variables["V"] = ((*block, "embed", "k"), of(found.V))
    for name, per_block in {
        "products": found.products,
        "matrix_free": [how == "krylov" for how in found.methods],
    }.items():
        values = np.tile(np.array(per_block, np.float32), (1, len(pairs), 1))
        variables[name] = (block, values)
    # Of a batch's points those of one token stand before the others, and are one operator.
    apart = np.array(["one-token" in how for how in found.attention])
    decoded = np.array([point.by_itself for point in recorded.points])
    variables["context_apart"] = (block, (decoded[:, None] & apart).astype(np.float32)[None])
    tokens, count, k = len(recorded.gram), len(found.methods), found.S.shape[-1]
    coordinates: dict[str, Any] = {
        "prompt": np.array([prompt.id], dtype=object),
        "pair": np.arange(len(pairs)),
        "token_in": (("prompt", "pair"), np.array([[a for a, _ in pairs]])),
        "token_out": (("prompt", "pair"), np.array([[b for _, b in pairs]])),
        "block": np.arange(1, count + 1),
        "block_other": np.arange(1, count + 1),
        "k": np.arange(1, k + 1),
        "k_other": np.arange(1, k + 1),
        "token": np.arange(tokens),
        "token_text": (("prompt", "token"), np.array([prompt.token_text], dtype=object)),
        "tokens": (("prompt",), np.array([tokens])),
        "state": np.arange(count + 1),
        "state_other": np.arange(count + 1),
        "component": np.arange(1, 3),
    }
    if not attributes.get("causal", True):
        coordinates["last"] = (("prompt",), np.array([prompt.places["last"][0]]))
    if found.S_full is not None:
        coordinates["k_full"] = np.arange(1, found.S_full.shape[-1] + 1)
    attributes = {"dimension": found.U.shape[-2], **attributes}
    return xr.Dataset(variables, coordinates, plain(attributes))


def attributes_of(model: nn.Module, settings: Settings, identity: dict[str, Any]) -> dict[str, Any]:
    """What made the numbers: model, settings and versions."""
    weights = next(p for p in model.parameters() if p.is_floating_point())
    return {
        **stamp(),
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
        "torch_version": version("torch"),
        "transformers_version": version("transformers"),
        **identity,
    }
