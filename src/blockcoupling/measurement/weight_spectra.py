"""Power laws in the spectra of a checkpoint's weight matrices, from the weights alone.

Martin & Mahoney (2021, JMLR 22:165) find that the eigenvalues of WᵀW of a well-trained layer end in
a power law, and that better models have smaller exponents.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from blockcoupling.atomic import replacing
from blockcoupling.measurement.power_law import fit
from blockcoupling.progress import Progress
from blockcoupling.sources.models import load_model, stored_in
from blockcoupling.sources.records import read_record
from blockcoupling.transformer.weight_files import stored_tensors

if TYPE_CHECKING:
    from jaxtyping import Float

logger = logging.getLogger(__name__)

FEWEST = 50
"""Eigenvalues below which no law is fitted to a matrix."""
COLUMNS = (
    *("model", "checkpoint", "weight", "block", "rows", "columns"),
    *("exponent", "smallest", "tail", "distance", "largest"),
)
_ZERO = 1e-12  # of the largest eigenvalue: what rounding leaves of a rank that is not full
_FLOATS = ("F16", "BF16", "F32", "F64")


def write_weight_spectra(record: Path, out: Path) -> None:
    """Write `weight_spectra` as a Parquet table."""
    table = weight_spectra(read_record(record))
    with replacing(out) as fresh:
        table.to_parquet(fresh, index=False, write_page_checksum=True)


def weight_spectra(record: Mapping[str, Any]) -> pd.DataFrame:
    """Fit a power law to the eigenvalues of WᵀW of every weight matrix in a checkpoint's blocks.

    Matrices with fewer than :data:`FEWEST` rows or columns are omitted, and so are embeddings and
    head. Each expert of a mixture is a matrix. Weights are read from their files one after another,
    unless they are randomly re-initialised, quantized or in pickles.

    Args:
        record: a model's record (`sources.models.model_record`).

    Returns:
        A row for each matrix: :data:`COLUMNS`; `block` counts from 1; `smallest`, `tail` and
        `distance` as in `power_law.PowerLaw`; `largest` is the largest eigenvalue.

    Raises:
        UserError: the model is missing or cannot be loaded.
    """
    rows = []
    for name, weight in _matrices(record):
        values = eigenvalues(weight)
        law = fit(values[values > _ZERO * values[-1]])
        block = _block(name)
        assert block is not None
        about = {"weight": name, "block": block, "rows": len(weight), "columns": weight.shape[1]}
        rows.append({**about, **law._asdict(), "largest": values[-1]})
    if not rows:
        logger.warning(
            "model %s: no weight matrix of its blocks has the %d eigenvalues that a fit needs",
            record.get("name"),
            FEWEST,
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.assign(model=record["name"], checkpoint=record["checkpoint"])


def eigenvalues(weight: Tensor) -> Float[np.ndarray, " number"]:
    """Eigenvalues of the smaller of WᵀW and W Wᵀ, ascending, float64: squared singular values."""
    wide = weight.double()
    wide = wide.T if len(wide) > wide.shape[1] else wide
    return torch.linalg.eigvalsh(wide @ wide.T).clamp(min=0).numpy()


def _matrices(record: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The weight matrices of the blocks that are large enough, by name."""
    directory = stored_in(record)
    in_files = record.get("init_seed") is None and not record.get("quantization")
    stored = stored_tensors(directory) if in_files else {}
    if stored:
        shapes = {name: each.shape for name, each in stored.items() if each.dtype in _FLOATS}
    else:
        model, _ = load_model(record, "cpu")
        weights = dict(model.named_parameters())
        shapes = {name: tuple(each.shape) for name, each in weights.items()}
    wanted = [
        name
        for name, shape in shapes.items()
        if _block(name) and len(shape) in (2, 3) and min(shape[-2:]) >= FEWEST
    ]
    with Progress(len(wanted), "weights", "matrix") as progress:
        for name in sorted(wanted, key=lambda name: (_block(name), name)):
            whole = _read(stored[name].file, name) if stored else weights[name].detach()
            if whole.ndim == 2:
                yield name, whole
            else:
                yield from ((f"{name}[{n}]", each) for n, each in enumerate(whole))
            progress.advance()


def _read(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.get_tensor(name)


def _block(name: str) -> int | None:
    """The number of the block that a weight belongs to, from 1; None outside the blocks."""
    number = re.search(r"\.(\d+)\.", f".{name}")
    return int(number[1]) + 1 if number else None
