"""One model and a few prompts, without the workflow."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import xarray as xr
from torch import nn

from blockcoupling.config.presets import with_preset
from blockcoupling.config.variants import DEFAULT_VARIANT, VARIANTS, products
from blockcoupling.measurement.instrument import Instrument, Settings
from blockcoupling.store.schema import combine, validate
from blockcoupling.transformer.streaming import StreamedModel
from blockcoupling.transformer.tokens import texts_of, tokenize_prompts


def measure(
    model: nn.Module | StreamedModel,
    tokenizer: Callable[[str], Any],
    prompts: str | Iterable[str],
    k: int | None = None,
    *,
    dtype: torch.dtype | None = None,
    batch: int | None = None,
    preset: str | None = None,
    progress: Callable[[], object] = lambda: None,
    **settings: Any,
) -> xr.Dataset:
    """Measure prompts: singular triples of every block's residual Jacobian, A_ij, trajectories.

    Args:
        model: a causal transformer (Hugging Face or alike), weights in float32 or float64; others
            are measured on a float32 copy. Or a streamed model (`streaming.stream_model`).
        tokenizer: any callable text → input_ids, or → a mapping that holds them.
        prompts: the texts; a text alone is one prompt.
        k: K_max; by default 50, or d where d < 50.
        dtype: measure on a copy of the model with weights of this type.
        batch: how many prompts go through a block together; None: what free memory holds, 1 … 16.
        preset: settings that belong together, by name: "released" is what the authors' code does
            (docs/definitions.md).
        progress: called after every prompt.
        settings: further fields of `instrument.Settings`: tokens, method, tolerance, vectors, …

    Returns:
        The dataset of docs/schema.md, prompts named p0, p1, …

    Raises:
        UserError: for prompts or settings that cannot be measured on this model.
        MeasurementError: where a number cannot be trusted; names block and prompt.
    """
    asked = vars(Settings(k=k, **settings))
    chosen = Settings(**with_preset(preset, asked, vars(Settings())))
    texts = [(f"p{i}", text) for i, text in enumerate(texts_of(prompts))]
    tokenized = tokenize_prompts(tokenizer, texts, model)
    if not isinstance(model, StreamedModel):
        model = in_precision(model, dtype)
    instrument = Instrument.of(model, chosen, {})
    kept = instrument.check(tokenized)
    if batch is None:
        batch = instrument.prompts_at_once(tokenized, kept)
    parts: list[xr.Dataset] = []
    for start in range(0, len(tokenized), batch):
        for part in instrument.measure(tokenized[start : start + batch]):
            parts.append(part)
            progress()
    ds = combine(parts)
    validate(ds)
    return ds


def in_precision(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The model itself where its weights are float32 or float64 (or `dtype`), else a copy."""
    own = next(p.dtype for p in model.parameters() if p.is_floating_point())
    wanted = dtype or (own if own in (torch.float32, torch.float64) else torch.float32)
    return model if own == wanted else copy.deepcopy(model).to(wanted)


def summary(ds: xr.Dataset, k: int, variant: str = DEFAULT_VARIANT) -> pd.DataFrame:
    """One row per prompt and pair: coupling, adjacent blocks, s_1, regularity of the last token.

    Args:
        ds: a dataset of the schema.
        k: how many singular vectors are compared.
        variant: of the mis-coupling.
    """
    from blockcoupling.reduce.coupling import mean_between_blocks, mean_by_distance, miscoupling
    from blockcoupling.reduce.trajectory import expodistance, line_shape_score

    m = miscoupling(ds, k=k, variant=variant)
    between, adjacent = mean_between_blocks(m), mean_by_distance(m).sel(distance=1)
    rows = []
    lss, ed = line_shape_score(ds), expodistance(ds)
    for p, prompt in enumerate(ds["prompt"].values):
        for q in range(ds.sizes["pair"]):
            t1, t2 = (int(ds[name].values[p, q]) for name in ("token_in", "token_out"))
            if t1 < 0:
                continue
            rows.append(
                {
                    "prompt": str(prompt),
                    "tokens": int(ds["tokens"].values[p]),
                    "token_in": t1,
                    "token_out": t2,
                    "coupling": -float(between[p, q]),
                    "adjacent": -float(adjacent[p, q]),
                    "s_1 (median block)": float(ds["S"][p, q, :, 0].median()),
                    "line_shape_score": float(lss[p, t2]),
                    "expodistance": float(ed[p, t2]),
                }
            )
    return pd.DataFrame(rows)


def measure_to_table_and_picture(
    model: str,
    prompts: Sequence[str],
    *,
    k: int = 10,
    variant: str | None = None,
    preset: str | None = None,
    token: str = "last",
    picture: Path | None = None,
    dtype: str = "float32",
    method: str = "auto",
    device: str = "auto",
    revision: str | None = None,
) -> pd.DataFrame:
    """What `blockcoupling measure` does: load, measure, draw the mean mis-coupling matrix.

    Args:
        model: a directory, or a hub id (with `@revision`).
        prompts: the texts.
        k: how many singular vectors are compared.
        variant: of the mis-coupling; None: frobenius, or the first of the preset's.
        preset: of `presets.PRESETS`, such as "released"; None: the defaults.
        token: "last", "all", or a position.
        picture: where to write the matrix; none if None.
        dtype: "float32" or "float64".
        method: "auto", "dense" or "krylov".
        device: "auto", "cpu", "cuda", …
        revision: of a hub model.

    Returns:
        The table of `summary`.

    Raises:
        UserError: if the model, a prompt or an option cannot be used.
    """
    from blockcoupling.config.presets import PRESETS
    from blockcoupling.errors import UserError
    from blockcoupling.progress import Progress
    from blockcoupling.sources.models import load_model, record_of

    if variant is None:
        variant = DEFAULT_VARIANT if preset is None else PRESETS[preset].variants[0]
    wrong = []
    if not re.fullmatch("last|all|-?[0-9]+", token):
        wrong.append(f"token {token!r}: give last, all, or a position such as 0 or -1")
    if variant not in VARIANTS:
        wrong.append(f"unknown variant {variant!r}: choose from {', '.join(VARIANTS)}")
    if dtype not in ("float32", "float64"):
        wrong.append(f"dtype {dtype!r}: give float32 or float64")
    if wrong:
        raise UserError("\n".join(wrong))
    name = f"{model}@{revision}" if revision else model
    record = record_of(name)
    loaded, tokenizer = load_model(record, device, dtype)
    with Progress(len(prompts), "measuring", "prompt") as progress:
        ds = measure(
            loaded,
            tokenizer,
            prompts,
            k,
            tokens=token if token in ("last", "all") else [int(token)],
            method=method,
            swapped="A_swapped" in products([variant]),
            preset=preset,
            progress=progress.advance,
        )
    if picture is not None:
        draw(ds, k, variant, name, picture)
    return summary(ds, k, variant)


def draw(ds: xr.Dataset, k: int, variant: str, title: str, picture: Path) -> None:
    """Write the L × L mis-coupling matrix, mean over prompts and pairs, as one picture."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    from blockcoupling.reduce.coupling import miscoupling

    mean = miscoupling(ds, k=k, variant=variant).mean(["prompt", "pair"])
    figure, axes = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
    edge = ds.sizes["block"] + 0.5
    image = axes.imshow(
        mean.values,
        cmap="viridis_r",
        vmin=0,
        extent=(0.5, edge, edge, 0.5),
        interpolation="nearest",
    )
    axes.set(xlabel="block j (singular vectors)", ylabel="block i (Jacobian)", title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    prompts = ds.sizes["prompt"]
    label = f"mis-coupling $m_{{{k}}}(i, j)$, {variant}, {prompts} prompt{'s' * (prompts > 1)}"
    figure.colorbar(image, ax=axes, label=label)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=200)
    plt.close(figure)
