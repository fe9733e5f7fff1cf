"""What rounding the weights to 8 or 4 bits changes: python -m benchmarks.quantization CATALOG.

CATALOG is that of a study with one model in float32 and rounded, config/studies/smollm2.yaml for
one. Writes docs/quantization.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import blockcoupling as bc
from blockcoupling.catalog import Catalog

K = 10
PAGE = """# What quantization changes

Written by `python -m benchmarks.quantization CATALOG`; do not edit. {model}, {datasets} datasets
with {prompts} prompts in all, last token, all {blocks} blocks, top {k} triples. The weights are
rounded by bitsandbytes, dequantized, and differentiated in float32; each prompt is compared with
the same prompt in the unquantized model.

- **S**: |s_k − s_k of float32| over s_1 of float32, over prompts, blocks and k.
- **m**: |m(i, j) − m(i, j) of float32|, over prompts and pairs i ≠ j; variant `frobenius`.
- **coupling**: coupling of a prompt minus that in float32; mean with its standard error over
  prompts, and the largest difference.

| weights | S, median | S, largest | m, median | m, largest | coupling | largest |
|---|--:|--:|--:|--:|--:|--:|
{rows}

In float32 the coupling of these prompts is {mean:.4f} on average, with a standard deviation of
{spread:.4f} between prompts{untrained}. Rounding changes single matrices more than their average.
To interpret one prompt or one pair of blocks, measure in full precision;
streaming makes this possible for models larger than memory ([adding-models.md](adding-models.md)).
"""


def compare(
    catalog: Catalog, model: str, rounded: str, checkpoint: str = "main"
) -> dict[str, np.ndarray]:
    """Differences of a rounded model from the same in float32, flattened; prompts are paired."""
    found: dict[str, list[np.ndarray]] = {"S": [], "m": [], "coupling": []}
    for dataset in catalog.search(kind="svd", model=model).facets()["dataset"]:
        exact, other = (_store(catalog, name, checkpoint, dataset) for name in (model, rounded))
        other = other.sel(prompt=exact["prompt"])
        own, theirs = exact["S"].values[..., :K], other["S"].values[..., :K]
        found["S"].append(np.abs(theirs - own).ravel() / own[..., :1].repeat(K, -1).ravel())
        m, changed = (bc.miscoupling(ds, k=K).values for ds in (exact, other))
        apart = ~np.eye(m.shape[-1], dtype=bool)
        found["m"].append(np.abs(changed - m)[..., apart].ravel())
        coupling = bc.coupling(other, k=K).values - bc.coupling(exact, k=K).values
        found["coupling"].append(coupling.ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _store(catalog: Catalog, model: str, checkpoint: str, dataset: str) -> xr.Dataset:
    return catalog.one(kind="svd", model=model, checkpoint=checkpoint, dataset=dataset).read()


def _line(name: str, found: dict[str, np.ndarray]) -> str:
    change = found["coupling"]
    error = change.std(ddof=1) / len(change) ** 0.5
    numbers = [f"{f(found[x]):.1e}" for x in ("S", "m") for f in (np.median, np.max)]
    numbers += [f"{change.mean():+.4f} ± {error:.4f}", f"{np.abs(change).max():.4f}"]
    return f"| {name} | " + " | ".join(numbers) + " |"


def _coupling(catalog: Catalog, model: str, checkpoint: str) -> pd.Series:
    table = catalog.search(kind="coupling", model=model, checkpoint=checkpoint).frame(
        filters=[("variant", "==", "frobenius"), ("k", "==", K)]
    )
    return table["coupling"]


def page(catalog: Catalog, model: str) -> str:
    """The page for a study's model and the rounded ones, distinguished by their attributes."""
    kinds = {}
    for name in catalog.search(kind="svd", checkpoint="main").facets()["model"]:
        entries = catalog.search(kind="svd", model=name, checkpoint="main")
        how = entries[next(iter(entries))].read().attrs["quantization"]
        if how is not None:
            kinds[how] = name
    own = _coupling(catalog, model, "main")
    blocks = catalog.search(kind="svd", model=model, checkpoint="main")
    new = catalog.search(kind="coupling", model=model, checkpoint="init")
    return PAGE.format(
        model=model,
        datasets=len(blocks),
        prompts=len(own),
        blocks=blocks[next(iter(blocks))].read().sizes["block"],
        k=K,
        rows="\n".join(
            _line(how, compare(catalog, model, kinds[how]))
            for how in ("int8", "nf4", "nf4-double")
            if how in kinds
        ),
        mean=own.mean(),
        spread=own.std(),
        untrained=f" (untrained: {_coupling(catalog, model, 'init').mean():.4f})"
        if len(new)
        else "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("catalog", type=Path, help="catalog/STUDY.yml")
    parser.add_argument("--model", default="smollm2", help="the model in float32")
    chosen = parser.parse_args()
    text = page(bc.open_catalog(chosen.catalog), chosen.model)
    Path("docs/quantization.md").write_text(text)


if __name__ == "__main__":
    main()
