"""A small study with made-up yet plausible numbers: every kind of table, entered in a catalog.

Coupling emerges with training, is stronger between near blocks, and correlates with the score.
Nothing here is measured; the numbers only have to look like measurements and be known to the tests.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from example_store import example

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.config.damage import DamageSettings, changes
from blockcoupling.config.intervention import Intervention
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.lab.ablation.baselines import Baseline
from blockcoupling.lab.ablation.statistics import relate, with_baselines
from blockcoupling.lab.intervention.statistics import adjust_prespecified, compare, judge
from blockcoupling.statistics.multiplicity import adjust
from blockcoupling.statistics.write import write_statistics
from blockcoupling.store.comparisons import PLACES

STEPS = (0, 4, 16, 64, 256, 600)
MODELS = {
    "neox-64": {"blocks": 4, "dimension": 64, "parameters": 250_000},
    "neox-96": {"blocks": 6, "dimension": 96, "parameters": 760_000},
    "neox-128": {"blocks": 8, "dimension": 128, "parameters": 1_700_000},
}
DATASETS = ("heldout", "handwritten")
KS = (1, 2, 5, 10, 20, 30)
SIZES = {"frobenius": 1, "absolute": 0.8, "absolute_trace": 0.25, "offdiagonal": 0.9, "swapped": 1}
ZARR = {"zarr_format": 3, "consolidated": False}


class Study:
    """Writes a study below `root`, one artifact and its entry file after the other."""

    def __init__(self, root: Path, seed: int = 0, overlaps: bool = True) -> None:
        self.root, self.overlaps = root, overlaps
        self.random = np.random.default_rng(seed)
        self.entries: list[Path] = []

    def enter(self, kind: str, path: Path, **facets: object) -> None:
        file = self.root / "entries" / f"{len(self.entries):04d}.yml"
        write_entry(file, kind, path, facets)
        self.entries.append(file)

    def table(self, rows: list[dict], kind: str, path: Path, **facets: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([{**facets, **row} for row in rows]).to_parquet(path, index=False)
        self.enter(kind, path, **facets)

    def join(self, name: str = "catalog") -> Catalog:
        return join(self.entries, self.root / "catalog" / f"{name}.yml")


def trained(step: float, total: float = 600) -> float:
    """0 at initialisation, 1 at its height near a tenth of training, then somewhat less."""
    rise = np.log1p(step) / np.log1p(0.1 * total)
    return float(min(rise, 1) - 0.25 * max(0.0, rise - 1) / 0.55)


def write_study(
    root: Path,
    models: Mapping[str, Mapping[str, object]] = MODELS,
    steps: Sequence[int] = STEPS,
    prompts: int = 6,
    seed: int = 0,
    overlaps: bool = True,
) -> Catalog:
    """Write the study and return its catalog of measurements.

    Without overlaps it is as one that an older version of the package has measured: without what is
    of whole prompts and of weights, too.
    """
    study = Study(root, seed, overlaps)
    for dataset in DATASETS:
        path = root / "prompts" / f"{dataset}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"id": f"{n:03d}", "text": f"Prompt {n} of {dataset}"} for n in range(prompts)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        study.enter("prompts", path, dataset=dataset)
    for index, (model, facts) in enumerate(models.items()):
        for step in steps:
            _checkpoint(study, model, facts, step=step, index=index, prompts=prompts)
    return study.join("measurements")


IMAGE_MODELS = {
    f"vit-{rate}-{decay}-{seed}": {
        "blocks": 4,
        "dimension": 48,
        "parameters": 120_000,
        "family": "vit",
        "modality": "image",
        "tokens": None,
        "facts": {
            "factors": {"stochastic_depth": rate, "weight_decay": decay, "seed": seed},
        },
    }
    for rate in (0.0, 0.2, 0.4)
    for decay in (0.05, 0.3)
    for seed in (0, 1)
}


def write_mixed_study(root: Path) -> Catalog:
    """Write a study of language models and image models; return its catalog of measurements."""
    write_study(root, steps=(0, 600), prompts=3)
    study = Study(root, seed=1)
    study.entries = sorted((root / "entries").glob("*.yml"))
    path = root / "prompts" / "digits.jsonl"
    lines = [{"id": f"{n}", "image": "", "class": str(n), "source": "digits"} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    study.enter("prompts", path, dataset="digits")
    for index, (model, facts) in enumerate(IMAGE_MODELS.items()):
        for step in (0, 600):
            _checkpoint(study, model, facts, step=step, index=index, prompts=3)
    return study.join("measurements")


def analyse(root: Path, measured: Catalog, *, arms: bool = True) -> Catalog:
    """Write the statistics of a study at `root` and return a catalog that has them too."""
    files = write_statistics(measured, root / "statistics" / "correlation.parquet", resamples=200)
    files |= _damage(measured, root / "statistics")
    files |= _experiment(root / "statistics") if arms else {}
    for kind, path in files.items():
        write_entry(root / "entries" / f"{kind}.yml", kind, path)
    return join((root / "entries").glob("*.yml"), root / "catalog" / "statistics.yml")


def _experiment(folder: Path) -> dict[str, Path]:
    """Arms whose coupling was set, and what came of it: a little for the worse either way."""
    random = np.random.default_rng(12)
    rows = []
    for arm, weight, coupling in (
        ("plain", np.nan, -0.9),
        ("couple -0.03", -0.03, -1.3),
        ("couple 0.1", 0.1, -0.5),
        ("sham", np.nan, -0.92),
    ):
        for seed, step in itertools.product(range(4), (256, 512)):
            loss = 2.2 + 0.2 * (step == 256) + 0.1 * abs(coupling + 0.9) + random.normal(0, 0.01)
            rows.append(
                {
                    **{"model": f"{arm}-{seed}", "checkpoint": f"step{step}", "step": step},
                    **{"final": step == 512, "population": arm.split()[0], "arm": arm},
                    **{"pair": f"seed {seed}", "stratum": "", "weight": weight},
                    "schedule": "constant",
                    "coupling": coupling + random.normal(0, 0.02),
                    "training.loss": loss - 0.05,
                    "heldout.loss": loss,
                    "damage.skip": coupling / 4 + random.normal(0, 0.05) if step == 512 else np.nan,
                }
            )
    section = Intervention(control="plain", doses=["couple"], shams=["sham"])
    section.smallest_effect = {"heldout.loss": 0.02}
    table = pd.DataFrame(rows)
    told = pd.DataFrame(compare(table, section, "training.loss"))
    told = judge(adjust_prespecified(told, section, {}), section)
    files = {name: folder / f"{name}.parquet" for name in ("arms", "intervention")}
    arms = table.assign(control="plain", compared_at=2.3)
    arms.to_parquet(files["arms"], index=False)
    told.to_parquet(files["intervention"], index=False)
    return files


def _damage(measured: Catalog, folder: Path) -> dict[str, Path]:
    """Changed blocks of the models' ends, damaged as m and block influence say, and noise."""
    random = np.random.default_rng(11)
    relations, beside = [], []
    records = measured.search(kind="model").frame()
    for model, step, blocks in records[["name", "step", "blocks"]].itertuples(index=False):
        if step not in (0, 600):
            continue
        distance = np.abs(np.subtract.outer(np.arange(blocks), np.arange(blocks))).astype(float)
        m = 1 - trained(step) * 0.5 / (1 + distance) + random.normal(0, 0.02, distance.shape)
        influence = random.uniform(0.05, 0.5, blocks)
        found = {
            Baseline("miscoupling", 10, "frobenius"): m,
            Baseline("distance"): distance,
            Baseline("block_influence"): influence,
            Baseline("cosine_distance"): influence[:, None] + influence + distance / 10,
        }
        means = pd.DataFrame(
            [
                {
                    **change._asdict(),
                    "blocks": "one" if change.block == change.block_other else "two",
                    "kl": np.exp(3 * m[i, j] + 4 * influence[j] + random.normal(0, 0.2)),
                    "loss_change": influence[j] + random.normal(0, 0.1),
                    "reason": "",
                }
                for change in changes(DamageSettings(pairs="all"), blocks)
                for i, j in [(change.block - 1, change.block_other - 1)]
            ]
        )
        refused = (means["treatment"] == "swap") & (means["block"] == 1)
        means.loc[refused, ["kl", "loss_change", "reason"]] = np.nan, np.nan, "of two kinds"
        who = {"model": model, "checkpoint": f"step{step}"}
        beside.append(with_baselines(means, found, 10, "frobenius").assign(**who))
        relations += [{**who, **row} for row in relate(means, found)]
    told = adjust(pd.DataFrame(relations), by=["model", "checkpoint", "given"], columns=["p"])
    tables = {
        "damage_statistics": told.assign(headline=True),
        "damage_pairs": pd.concat(beside).assign(k=10, variant="frobenius"),
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    return {name: folder / f"{name}.parquet" for name in tables}


def _checkpoint(
    study: Study, model: str, facts: Mapping, *, step: int, index: int, prompts: int
) -> None:
    of_images = facts.get("modality") == "image"
    checkpoint, progress = f"{'epoch' if of_images else 'step'}{step}", trained(step)
    path = study.root / "models" / model / f"{checkpoint}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"name": model, "checkpoint": checkpoint, "family": "neox", "source": "train"}
    record |= {"step": step, "tokens": step * 4096, "architecture": "GPTNeoXForCausalLM", **facts}
    path.write_text(json.dumps(record))
    study.enter("model", path, model=model, checkpoint=checkpoint)

    loss = 5.55 - 3.4 * np.log1p(step) / np.log1p(600) - 0.15 * index * progress
    scores = [
        {"score": "heldout", "metric": "loss", "value": loss, "higher_is_better": False},
        {"score": "heldout", "metric": "accuracy", "value": 0.72 - 0.125 * loss},
    ]
    if of_images:
        scores = [{"score": "test", "metric": "accuracy", "value": 0.95 - 0.02 * loss}]
    same = {"standard_error": 0.01, "n": 400, "source": "evaluated", "higher_is_better": True}
    study.table(
        [{**same, **row} for row in scores],
        "score",
        study.root / "scores" / model / f"{checkpoint}.parquet",
        model=model,
        checkpoint=checkpoint,
    )
    if study.overlaps:
        study.table(
            [
                {"weight": f"h.{b}.mlp", "block": b + 1, "exponent": 4 - 1.5 * progress + 0.1 * b}
                for b in range(int(str(facts["blocks"])))
            ],
            "weight_spectra",
            study.root / "weight_spectra" / model / f"{checkpoint}.parquet",
            model=model,
            checkpoint=checkpoint,
        )
    for dataset in ("digits",) if of_images else DATASETS:
        facets = {"model": model, "checkpoint": checkpoint, "dataset": dataset}
        _measurements(study, facets, facts, progress, prompts)


def _measurements(
    study: Study, facets: dict[str, str], facts: Mapping, progress: float, prompts: int
) -> None:
    random, blocks = study.random, int(facts["blocks"])
    place = "/".join(facets.values())
    folder = study.root / "tables" / place
    distance = np.abs(np.subtract.outer(np.arange(blocks), np.arange(blocks)))
    tables: dict[str, list[dict]] = {
        "coupling": [],
        "overlap": [],
        "locality": [],
        "trajectory": [],
        "whole_prompt": [],
        "spectra": [],
        "singular_values": [],
    }
    matrices = np.zeros((prompts, len(OF_BLOCKS), len(KS), blocks, blocks))
    overlaps = np.zeros((prompts, len(KS), blocks, blocks))
    for prompt in range(prompts):
        last = 20 + prompt
        # Images are measured at their class token, which is the first.
        told = 0 if facts.get("modality") == "image" else last
        at = {"prompt": f"{prompt:03d}", "token_in": told, "token_out": told}
        shift = random.normal(0, 0.01)
        for v, variant in enumerate(OF_BLOCKS):
            for n, k in enumerate(KS):
                near = 0.18 + 0.4 * np.exp(-distance / 2.5) - 0.02 * np.log(k)
                noise = random.normal(0, 0.012, distance.shape)
                m = SIZES[variant] * (1.01 + shift - progress * near + noise)
                np.fill_diagonal(m, 0)
                matrices[prompt, v, n] = m
                off = m[distance > 0].mean()
                row = {**at, "variant": variant, "k": k, "coupling": -off, "miscoupling": off}
                tables["coupling"].append({**row, "adjacent": m[distance == 1].mean()})
                tables["locality"] += [
                    {
                        **at,
                        "variant": variant,
                        "k": k,
                        "distance": d,
                        "miscoupling": m[distance == d].mean(),
                    }
                    for d in range(1, blocks)
                ]
        for n, k in enumerate(KS):
            chance = k / facts["dimension"]
            o = chance + (1 - chance) * progress * 0.5 * np.exp(-distance / 2)
            o += shift + random.normal(0, 0.01, distance.shape)
            overlaps[prompt, n] = o
            means = {
                "output_overlap": o[distance > 0].mean(),
                "input_overlap": 0.9 * o[distance > 0].mean(),
                "composition": 0.5 * o[np.tril_indices(blocks, -1)].mean(),
            }
            above = {f"{key}_excess": (v - chance) / (1 - chance) for key, v in means.items()}
            tables["overlap"].append({**at, "k": k, **means, **above, "chance": chance})
        for token in (0, last - 1, last):
            tables["trajectory"].append(
                {
                    "prompt": at["prompt"],
                    "token": token,
                    "is_last": token == last,
                    "line_shape_score": 2.4 - 0.7 * progress + random.normal(0, 0.03),
                    "expodistance": 0.9 - 0.5 * progress + random.normal(0, 0.03),
                    "equidistance": 0.2 + 0.3 * progress + random.normal(0, 0.02),
                }
            )
        tables["whole_prompt"].append(
            {
                "prompt": at["prompt"],
                "block_influence": 0.3 - 0.15 * progress + random.normal(0, 0.01),
                "cka": 0.95 - 0.2 * progress + random.normal(0, 0.01),
                "rankme": 12 + 4 * progress + random.normal(0, 0.3),
                "own_loss": 5.5 - 3 * progress + random.normal(0, 0.1),
            }
        )
        for block in range(1, blocks + 1):
            count = max(KS)
            slope = 0.5 + 0.4 * progress
            s = (1 + progress * (3 + block)) * np.arange(1, count + 1.0) ** -slope
            s *= np.exp(random.normal(0, 0.03))
            tables["spectra"].append(
                {
                    **at,
                    "block": block,
                    "jacobian_norm": np.sqrt((s**2).sum()),
                    "s1": s[0],
                    "participation_ratio": s.sum() ** 2 / (s**2).sum(),
                    "effective_rank": float(count) / 2,
                    "svd_residual": 1e-6,
                }
            )
            tables["singular_values"] += [
                {**at, "block": block, "k": k, "s": s[k - 1]} for k in range(1, count + 1)
            ]
    if not study.overlaps:
        del tables["overlap"], tables["whole_prompt"]
    for kind, rows in tables.items():
        study.table(rows, kind, folder / f"{kind}.parquet", **facets)

    dims = ("variant", "K", "block", "block_other")
    numbers = np.arange(1, blocks + 1)
    means = {
        "output_overlap_mean": (dims[1:], overlaps.mean(0)),
        "input_overlap_mean": (dims[1:], 0.9 * overlaps.mean(0)),
        "composition_mean": (dims[1:], np.tril(0.5 * overlaps.mean(0), -1)),
    }
    of_images = facts.get("modality") == "image"
    mean = matrices.mean(0)
    spread, count = matrices.std(0, ddof=min(1, prompts - 1)), np.full(mean.shape, prompts)
    apart = {
        "miscoupling_by_pair_mean": (("pair", *dims), np.stack([mean, 1.1 * mean])),
        "miscoupling_by_pair_std": (("pair", *dims), np.stack([spread, 2 * spread])),
        "miscoupling_by_pair_count": (("pair", *dims), np.stack([count, count])),
    }
    xr.Dataset(
        {
            "miscoupling_mean": (dims, mean),
            "miscoupling_std": (dims, spread),
            "miscoupling_count": (dims, count),
            **(means if study.overlaps else {}),
            **(apart if of_images else {}),
        },
        coords={
            **(
                {"tokens": ("pair", np.array(["class", "mean"], dtype=object))} if of_images else {}
            ),
            "variant": np.array(list(OF_BLOCKS), dtype=object),
            "K": list(KS),
            "block": numbers,
            "block_other": numbers,
        },
        attrs={**facets, "dimension": facts["dimension"]},
    ).to_zarr(folder / "miscoupling.zarr", **ZARR)
    study.enter("miscoupling", folder / "miscoupling.zarr", **facets)

    store = study.root / "svd" / place / "svd.zarr"
    if facets["dataset"] == DATASETS[0] and facets["checkpoint"] in ("step0", "step600"):
        rounded = {"quantization": "nf4"} if facets["model"] == "neox-128" else {}
        small = example(prompts=1, blocks=3).assign_attrs(model_id=place, seed=0, **rounded)
        small = _more(small, random)
        small.to_zarr(store, **ZARR)
        study.enter("svd", store / "zarr.json", **facets)
        rows = _tokenwise(str(small["prompt"].values[0]), blocks, progress, random)
        study.table(rows, "tokenwise", folder / "tokenwise.parquet", **facets)


def _more(ds: xr.Dataset, random: np.random.Generator) -> xr.Dataset:
    """Principal components and all singular values, which not every store has."""
    tokens, states, blocks = ds.sizes["token"], ds.sizes["state"], ds.sizes["block"]
    walks = random.normal(1, 1, (1, tokens, states, 2)).cumsum(axis=2)
    spectra = np.arange(1.0, 65) ** -np.linspace(0.5, 1, blocks)[:, None]
    return ds.assign(
        pca=(("prompt", "token", "state", "component"), walks.astype(np.float32)),
        pca_explained=(("prompt", "component"), np.array([[0.6, 0.2]], np.float32)),
        S_full=(("prompt", "pair", "block", "k_full"), spectra[None, None].astype(np.float32)),
    ).assign_coords(component=[1, 2], k_full=np.arange(1, 65))


def _tokenwise(prompt: str, blocks: int, progress: float, random: np.random.Generator) -> list:
    """Every two of four tokens compared, in two pairs of blocks."""
    places = [(a, b) for b in range(4) for a in range(b + 1)]
    rows = []
    for block, other in ((1, 1), (1, blocks)):
        for (a, b), (c, d) in itertools.product(places, places):
            kinds = {"self": a == b and c == d, "input_fixed": a == c, "output_fixed": b == d}
            near = abs(a - c) + abs(b - d) + (block != other)
            for kind in (name for name, belongs in kinds.items() if belongs):
                m = 0.0 if near == 0 else 1 - progress * 0.5 / near + random.normal(0, 0.01)
                at = (block, other, a, b, c, d)
                rows += [
                    {"prompt": prompt, "comparison": kind, **dict(zip(PLACES, at, strict=True))}
                    | {"variant": variant, "k": k, "miscoupling": SIZES[variant] * m}
                    for variant in OF_BLOCKS
                    for k in (5, 10)
                ]
    return rows
