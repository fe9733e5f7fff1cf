"""A catalog of many models measured at many prompts, written by the package's own writers.

The numbers are made up. One store is written and then linked for every model, so that the catalog
is as large as it says and its disk usage is not.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.config.variants import VARIANTS
from blockcoupling.store.checksums import write_store
from blockcoupling.store.svd import SVD

BLOCKS, K, KS, TOKENS = 24, 10, (1, 2, 5, 10), 32
AT = {"checkpoint": "main", "dataset": "prompts"}
SENTENCE = "The quick brown fox jumps over the lazy dog and runs back into the forest. "


def write_catalog(root: Path, models: int, prompts: int) -> Catalog:
    """Write the catalog; its largest model is the last."""
    from example_store import example

    ids = [f"{n:04d}" for n in range(prompts)]
    lines = ({"id": each, "text": f"Prompt {each}. {3 * SENTENCE}"} for each in ids)
    texts = root / "prompts.jsonl"
    texts.parent.mkdir(parents=True, exist_ok=True)
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    one = example(1, blocks=BLOCKS, embed=32, k=K, tokens=TOKENS)
    one = one.assign_attrs(model_id="model", seed=0)
    random, marks = np.random.default_rng(0), dict.fromkeys(ids, "made up")
    for each in ids:
        noise = random.normal(1, 0.1, one["A"].shape).astype(np.float32)
        named = one.assign(A=one["A"] * noise).assign_coords(prompt=np.array([each], object))
        SVD.write(root / "parts", each, named, marks[each])
    SVD.join(root / "parts", root / "store" / "svd.zarr", marks)
    write_store(_matrices(random, prompts), root / "store" / "miscoupling.zarr")
    files = [root / "entries" / "prompts.yml"]
    write_entry(files[0], "prompts", texts, {"dataset": AT["dataset"]})
    for n in range(models):
        files += _write_model(root, n, ids, random)
    return join(files, root / "catalog" / "catalog.yml")


def _matrices(random: np.random.Generator, prompts: int) -> xr.Dataset:
    shape, dims = (len(VARIANTS), len(KS), BLOCKS, BLOCKS), ("variant", "K", "block", "block_other")
    numbers = np.arange(1, BLOCKS + 1)
    return xr.Dataset(
        {
            "miscoupling_mean": (dims, random.normal(0.9, 0.05, shape)),
            "miscoupling_std": (dims, random.uniform(0.01, 0.02, shape)),
            "miscoupling_count": (dims, np.full(shape, prompts)),
        },
        coords={
            "variant": np.array(list(VARIANTS), dtype=object),
            "K": list(KS),
            "block": numbers,
            "block_other": numbers,
        },
        attrs={"dimension": 2048},
    )


def _write_model(root: Path, n: int, ids: list[str], random: np.random.Generator) -> list[Path]:
    model, folder = f"model-{n:02d}", root / "models" / f"model-{n:02d}"
    folder.mkdir(parents=True)
    whose = {"model": model, "checkpoint": AT["checkpoint"]}
    record = {
        **{"name": model, "checkpoint": AT["checkpoint"], "family": f"family-{n % 6}"},
        **{"source": "hub", "step": None, "tokens": None, "architecture": "LlamaForCausalLM"},
        **{"blocks": BLOCKS, "dimension": 2048, "parameters": int(1e8 * 1.1**n)},
    }
    (folder / "model.json").write_text(json.dumps(record))
    prompt = pd.DataFrame({"prompt": ids, "token_in": TOKENS - 1, "token_out": TOKENS - 1})
    every = pd.MultiIndex.from_product([VARIANTS, KS], names=["variant", "k"]).to_frame(index=False)
    coupling = prompt.merge(every, how="cross")
    coupling["coupling"] = random.normal(-0.9, 0.02, len(coupling))
    spectra = prompt.merge(pd.DataFrame({"block": range(1, BLOCKS + 1)}), how="cross")
    for name in ("jacobian_norm", "s1", "participation_ratio", "effective_rank", "svd_residual"):
        spectra[name] = random.uniform(1, 5, len(spectra))
    token = pd.DataFrame({"token": range(TOKENS), "is_last": np.arange(TOKENS) == TOKENS - 1})
    trajectory = prompt[["prompt"]].merge(token, how="cross")
    for name in ("line_shape_score", "expodistance", "equidistance"):
        trajectory[name] = random.uniform(1, 2, len(trajectory))
    score = pd.DataFrame([{"score": "arc", "metric": "acc", "value": 0.3 + n / 100}])
    score = score.assign(standard_error=0.01, n=400, source="evaluated", higher_is_better=True)
    tables = {
        "coupling": coupling.assign(miscoupling=-coupling["coupling"], adjacent=0.8, **AT),
        "spectra": spectra.assign(**AT),
        "trajectory": trajectory.assign(**AT),
        "score": score.assign(checkpoint=AT["checkpoint"]),
    }
    files = []
    for kind, table in tables.items():
        path = folder / f"{kind}.parquet"
        table.assign(model=model).to_parquet(path, index=False)
        files.append(root / "entries" / f"{model}-{kind}.yml")
        write_entry(files[-1], kind, path, whose if kind == "score" else {"model": model, **AT})
    for name in ("svd", "miscoupling"):
        store = folder / f"{name}.zarr"
        shutil.copytree(root / "store" / store.name, store, copy_function=os.link)
        files.append(root / "entries" / f"{model}-{name}.yml")
        write_entry(files[-1], name, store / "zarr.json", {"model": model, **AT})
    files.append(root / "entries" / f"{model}.yml")
    write_entry(files[-1], "model", folder / "model.json", whose)
    return files
