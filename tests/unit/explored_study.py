"""A small synthetic study with everything that the explorer shows, and stores of every prompt."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from example_store import example
from synthetic_study import ZARR, Study, _tokenwise, write_study

from blockcoupling.catalog import Catalog
from blockcoupling.statistics.write import write_statistics

BLOCKS, STEPS = 3, (4, 64)
MODELS = {
    "neox-a": {"blocks": BLOCKS, "dimension": 64, "parameters": 250_000, "family": "small"},
    "neox-b": {"blocks": BLOCKS, "dimension": 64, "parameters": 760_000, "family": "large"},
}
PROMPTS = ("000", "001", "002")


def write_explored_study(
    root: Path,
    models: Mapping[str, Mapping[str, object]] = MODELS,
    steps: Sequence[int] = STEPS,
    k: int = 30,
) -> Catalog:
    """Write the study; its largest model is the last one."""
    measured = write_study(root, models, steps, prompts=len(PROMPTS))
    study, random = Study(root), np.random.default_rng(3)
    study.entries = sorted((root / "entries").glob("*.yml"))
    for n, (model, step) in enumerate(itertools.product(models, steps)):
        facets = {"model": model, "checkpoint": f"step{step}", "dataset": "heldout"}
        blocks = int(str(models[model]["blocks"]))
        ds = example(
            len(PROMPTS),
            blocks=blocks,
            embed=32,
            k=k,
            swapped=True,
            overlaps=True,
            more=True,
            seed=n,
        )
        store = root / "svd" / model / f"step{step}" / "svd.zarr"
        ds.assign_coords(prompt=np.array(PROMPTS, object)).assign_attrs(
            model_id=model, seed=0
        ).to_zarr(store, **ZARR)
        study.enter("svd", store / "zarr.json", **facets)
        folder = root / "more" / model / f"step{step}"
        rows = _tokenwise(PROMPTS[0], blocks, step / 64, random)
        study.table(rows, "tokenwise", folder / "tokenwise.parquet", **facets)
        study.table(_damage(random, blocks), "damage", folder / "damage.parquet", **facets)
    for kind, path in write_statistics(
        measured, root / "statistics" / "correlation.parquet", resamples=20
    ).items():
        study.enter(kind, path)
    return study.join("explored")


def _damage(random: np.random.Generator, blocks: int) -> list[dict]:
    return [
        {
            **{"prompt": prompt, "kind": "prompt", "treatment": treatment},
            **{"block": i, "block_other": j, "reason": ""},
            "kl": random.uniform(0.1, 1),
            "loss_change": random.normal(),
        }
        for prompt in PROMPTS
        for treatment, i, j in (
            *(("skip", i, i) for i in range(1, blocks + 1)),
            *(("swap", i, j) for i, j in itertools.combinations(range(1, blocks + 1), 2)),
        )
    ]
