"""One job of token-wise coupling: a model and some prompts → a store, resumable, and its table.

A prompt's comparisons are written aside and renamed when they are whole; those of all prompts are
joined along `comparison`. The axes and columns: docs/schema.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from blockcoupling.atomic import replacing
from blockcoupling.config.variants import VARIANTS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.progress import Progress
from blockcoupling.reduce.coupling import miscoupling_kernel
from blockcoupling.reduce.tables import IDENTITY, parquet_table
from blockcoupling.sources.prompts import read_prompts
from blockcoupling.store.schema import SCHEMA_VERSION, SchemaError
from blockcoupling.store.stores import fingerprint

if TYPE_CHECKING:
    import pandas as pd

    from blockcoupling.measurement.tokenwise import TokenSettings

logger = logging.getLogger(__name__)

PLACES = (
    "block",
    "block_other",
    "token_in",
    "token_out",
    "token_in_other",
    "token_out_other",
)
AXES: Mapping[str, tuple[str, ...]] = {
    "A": ("comparison", "k", "k_other"),
    "S": ("comparison", "k"),
    "svd_residual": ("comparison",),
    **dict.fromkeys(("prompt", "kind", *PLACES), ("comparison",)),
}
_ZARR: dict[str, Any] = {"zarr_format": 3, "consolidated": False}
_CHUNK = 2048  # comparisons that are read together


def validate(ds: xr.Dataset) -> None:
    """Check a dataset of comparisons: version, variables, axes, finite numbers.

    Raises:
        SchemaError: saying what differs.
    """
    wrong = [
        f"{name}: expected ({', '.join(axes)})"
        for name, axes in AXES.items()
        if name not in ds.variables or ds[name].dims != axes
    ]
    if ds.attrs.get("schema_version") != SCHEMA_VERSION:
        wrong.append(f"schema_version is {ds.attrs.get('schema_version')!r}, not {SCHEMA_VERSION}")
    if wrong:
        raise SchemaError("not a store of compared tokens:\n- " + "\n- ".join(wrong))


def open_tokenwise(path: Path | str) -> xr.Dataset:
    """Open a store of compared tokens lazily.

    Raises:
        UserError: there is none, or it is something else.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise UserError(f"there is no store at {path}: run `blockcoupling tokenwise` first")
    ds = xr.open_zarr(path, consolidated=False)
    validate(ds)
    return ds


def tokenwise(
    model: Path,
    prompts: Path,
    parts: Path,
    out: Path,
    settings: TokenSettings,
    *,
    count: int | None = None,
    dtype: str = "float32",
    device: str = "auto",
) -> None:
    """Compare the tokens of each prompt that is not done yet, then join all into one store.

    Args:
        model: a model's record.
        prompts: JSON lines with id and text.
        parts: directory of finished prompts; kept, so that a rerun finds them.
        out: the store to write.
        settings: what to compare.
        count: how many prompts, from the first; None: all.
        dtype: of weights and products.
        device: where the model goes.

    Raises:
        UserError: tokens or blocks that are not there, before anything is measured.
        MeasurementError: naming model, prompt, block and tokens.
    """
    from blockcoupling.measurement.instrument import Instrument, Settings
    from blockcoupling.measurement.token_cost import cost
    from blockcoupling.measurement.tokenwise import chosen_blocks, chosen_tokens, compare_tokens
    from blockcoupling.sources.models import load_model, read_record
    from blockcoupling.transformer.tokens import tokenize_prompts

    record = read_record(model)
    loaded, tokenizer = load_model(record, device, dtype)
    some = [(p.id, p.text) for p in read_prompts(prompts)[:count]]
    wanted = tokenize_prompts(tokenizer, some, loaded)
    identity = {
        "model": record.get("name"),
        "checkpoint": record.get("checkpoint"),
        "revision": record.get("revision"),
        "quantization": record.get("quantization"),
        "dtype": dtype,
    }
    instrument = Instrument.of(loaded, Settings(tolerance=settings.tolerance), identity)
    instrument.check(wanted)
    blocks = instrument.blocks(wanted[0])
    pairs = chosen_blocks(settings.blocks, len(blocks))
    chosen = [chosen_tokens(settings.tokens, p.input_ids.shape[1]) for p in wanted]
    weights = sum(p.numel() for p in blocks.modules[0].parameters())
    used = len({block for pair in pairs for block in pair})
    for prompt, tokens in zip(wanted, chosen, strict=True):
        price = cost(weights, blocks.dimension, len(tokens), len(pairs), used, settings.k)
        logger.info("prompt %s, %d tokens: %s", prompt.id, len(tokens), price)
    expected = {
        p.id: fingerprint(
            settings={**asdict(settings), "blocks": [list(pair) for pair in pairs]},
            identity=identity,
            weights={key: record.get(key) for key in ("id", "path", "init_seed", "step")},
            input_ids=p.input_ids[0].tolist(),
        )
        for p in wanted
    }
    done = {name for name in expected if _fingerprint(_part(parts, name)) == expected[name]}
    steps = sum(used * len(tokens) for p, tokens in zip(wanted, chosen, strict=True))
    before = sum(used * len(t) for p, t in zip(wanted, chosen, strict=True) if p.id in done)
    with Progress(steps, "comparing", "token", done=before) as progress:
        for prompt in wanted:
            if prompt.id in done:
                continue
            try:
                ds = compare_tokens(instrument, prompt, settings, progress.advance)
            except MeasurementError as error:
                name = f"{identity['model']} at {identity['checkpoint']}"
                raise MeasurementError(f"model {name}, {error}") from error
            validate(ds)
            with replacing(_part(parts, prompt.id)) as fresh:
                ds.assign_attrs(fingerprint=expected[prompt.id]).to_zarr(fresh, **_ZARR)
    _merge([_part(parts, name) for name in expected], out)


def _part(parts: Path, prompt: str) -> Path:
    return parts / f"{quote(prompt, safe=' ')}.zarr"


def _fingerprint(part: Path) -> str | None:
    try:
        return json.loads((part / "zarr.json").read_text())["attributes"].get("fingerprint")
    except (OSError, ValueError, KeyError):
        return None  # not there, or not whole: measured again


def _merge(paths: Sequence[Path], out: Path) -> None:
    """Join parts along `comparison` (a few hundred bytes each, of a few prompts: in memory)."""
    parts = [xr.open_zarr(path, consolidated=False).load() for path in paths]
    whole = xr.concat(parts, "comparison", combine_attrs="drop_conflicts")
    whole.attrs.pop("fingerprint", None)
    for variable in whole.variables.values():
        variable.encoding = {}
    size = min(_CHUNK, whole.sizes["comparison"])
    encoding = {
        name: {"chunks": (size, *whole[name].shape[1:])}
        for name, data in whole.variables.items()
        if data.dims[:1] == ("comparison",)
    }
    with replacing(out) as fresh:
        whole.to_zarr(fresh, encoding=encoding, **_ZARR)


def tabulate(
    store: Path | str,
    out: Path | str,
    k: Sequence[int],
    variants: Sequence[str],
    identity: Mapping[str, str],
) -> None:
    """Write the mis-coupling of every comparison, variant and K as a tidy table.

    Args:
        store: of compared tokens.
        out: the Parquet file.
        k: numbers of singular vectors; those larger than the store's are left out.
        variants: of mis-coupling; those that the store cannot give are left out.
        identity: model, checkpoint, dataset.

    Raises:
        UserError: no K or variant is left.
    """
    ds = open_tokenwise(store)
    k = [each for each in k if each <= ds.sizes["k"]]
    variants = [name for name in variants if VARIANTS[name].product in ds]
    if not k or not variants:
        raise UserError(f"{store} holds nothing for these K and variants")
    with parquet_table(Path(out)) as append:
        for start in range(0, ds.sizes["comparison"], _CHUNK):
            some = ds.isel(comparison=slice(start, start + _CHUNK)).load()
            append(_rows(some, k, variants, identity))


def _rows(
    ds: xr.Dataset, k: Sequence[int], variants: Sequence[str], identity: Mapping[str, str]
) -> pd.DataFrame:
    import pandas as pd

    largest = max(k)
    s = ds["S"].values[:, None, :largest]
    by_variant = []
    for name in variants:
        a = ds[VARIANTS[name].product].values[:, None, None, :largest, :largest]
        # One block i and one j: (comparison, variant, K, 1, 1).
        by_variant.append(miscoupling_kernel(a, s, k, [name])[:, 0, :, 0, 0])
    values = np.stack(by_variant, axis=1)  # (comparison, variant, K)
    count, repeats = len(values), len(variants) * len(k)
    places = {name: np.repeat(ds[name].values, repeats) for name in ("prompt", "kind", *PLACES)}
    return pd.DataFrame(
        {
            **{name: np.full(count * repeats, identity[name], dtype=object) for name in IDENTITY},
            "prompt": places["prompt"],
            "comparison": places["kind"],
            **{name: places[name] for name in PLACES},
            "variant": np.tile(np.repeat(np.array(variants, dtype=object), len(k)), count),
            "k": np.tile(np.array(k), count * len(variants)),
            "miscoupling": values.ravel(),
        }
    )
