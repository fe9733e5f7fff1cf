"""Damage with its baselines: known truths, and the path from a catalog to the tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_store import example
from scipy import stats

from blockcoupling.catalog import join, open_catalog, write_entry
from blockcoupling.errors import UserError
from blockcoupling.lab.ablation.baselines import Baseline, at_places, of_one
from blockcoupling.lab.ablation.statistics import (
    fisher_z,
    mean_damage,
    over_models,
    relate,
    write_damage_statistics,
)
from blockcoupling.store.checksums import write_store


def test_places_that_change_are_what_counts() -> None:
    m, influence = np.arange(9.0).reshape(3, 3), np.array([1.0, 2, 4])
    assert at_places(m, "both", 3)[0, 2] == (m[0, 2] + m[2, 0]) / 2
    assert at_places(m, "second", 3)[0, 2] == m[0, 2]
    assert at_places(influence, "both", 3)[0, 2] == 2.5
    assert at_places(influence, "second", 3)[0, 2] == 4
    below = np.where(np.tri(3, k=-1) > 0, m, np.nan)  # composition is of i > j alone
    assert at_places(below, "both", 3)[0, 2] == m[2, 0]
    assert of_one(m)[0] == np.mean([m[0, 1], m[0, 2], m[1, 0], m[2, 0]])


def damage(blocks: int = 7) -> tuple[pd.DataFrame, dict[Baseline, np.ndarray]]:
    """Swapping costs what block influence says, replacing what m says; distance says nothing."""
    random = np.random.default_rng(1)
    influence, m = random.uniform(size=blocks), random.uniform(size=(blocks, blocks))
    place = np.arange(blocks, dtype=float)
    found = {
        Baseline("miscoupling", 10, "frobenius"): m,
        Baseline("distance"): np.abs(np.subtract.outer(place, place)),
        Baseline("block_influence"): influence,
    }
    rows = []
    for i in range(blocks):
        rows.append(("skip", "one", i, i, influence[i]))
        for j in range(blocks):
            if i < j:
                rows.append(("swap", "two", i, j, influence[i] + influence[j]))
            if i != j:
                rows.append(("replace", "two", i, j, m[i, j]))
    table = pd.DataFrame(rows, columns=["treatment", "blocks", "block", "block_other", "kl"])
    table[["block", "block_other"]] += 1
    return table.assign(loss_change=np.nan), found


def test_what_was_planted_is_found() -> None:
    means, found = damage()
    told = pd.DataFrame(relate(means, found))
    assert set(told["outcome"]) == {"kl"}  # no held-out text was measured
    rows = told.set_index(["treatment", "predictor", "given"])
    assert rows.loc[("swap", "block_influence", ""), "rho"] == pytest.approx(1)
    assert rows.loc[("replace", "miscoupling", ""), "rho"] == pytest.approx(1)
    held = rows.loc[("replace", "miscoupling", "distance, block_influence")]
    assert held["rho"] == pytest.approx(1)
    assert held["p"] == 1 / 14  # of all shifts and reflections of seven blocks, no other
    assert rows.loc[("skip", "block_influence", ""), "rho"] == pytest.approx(1)
    assert rows.loc[("swap", "distance", ""), "p"] > 0.05
    assert abs(rows.loc[("swap", "miscoupling", "distance"), "rho"]) < 0.7
    assert (told["entries"] == told["treatment"].map({"skip": 7, "swap": 21, "replace": 42})).all()


def test_means_are_over_prompts_and_then_over_datasets() -> None:
    same = {"treatment": "swap", "block": 1, "block_other": 2, "reason": ""}
    rows = [("a", "prompt", 1.0), ("a", "prompt", 3.0), ("b", "prompt", 6.0), ("a", "heldout", 9.0)]
    table = pd.DataFrame(
        [{**same, "dataset": d, "kind": k, "kl": v, "loss_change": v / 2} for d, k, v in rows]
    )
    (mean,) = mean_damage(table).to_dict("records")
    assert (mean["kl"], mean["loss_change"]) == (4.0, 4.5)
    assert mean["blocks"] == "two"


def test_tables_come_from_a_catalog(tmp_path: Path) -> None:
    blocks, facets = 5, {"model": "m", "checkpoint": "c", "dataset": "d"}
    ds = example(prompts=2, blocks=blocks)
    write_store(ds, tmp_path / "svd.zarr")
    m = np.random.default_rng(2).uniform(0.8, 1, (1, 1, blocks, blocks))
    axes = ("variant", "K", "block", "block_other")
    coords = {"variant": np.array(["frobenius"], dtype=object), "K": [2]}
    write_store(xr.Dataset({"miscoupling_mean": (axes, m)}, coords), tmp_path / "miscoupling.zarr")
    spectra = pd.DataFrame(
        {"block": range(1, blocks + 1), "jacobian_norm": 1.0, "s1": [5, 4, 3, 2, 1]}
    )
    spectra.to_parquet(tmp_path / "spectra.parquet")
    means, _ = damage(blocks)
    rows = means.assign(**facets, prompt="p", kind="prompt", tokens=4, loss=1.0, reason="")
    rows.to_parquet(tmp_path / "damage.parquet")
    stores = {"svd": "svd.zarr", "miscoupling": "miscoupling.zarr"}
    tables = {"spectra": "spectra.parquet", "damage": "damage.parquet"}
    (tmp_path / "c.json").write_text(json.dumps({"name": "m", "checkpoint": "c", "step": 9}))
    for kind, name in {**stores, **tables, "model": "c.json"}.items():
        write_entry(tmp_path / "entries" / f"{kind}.yml", kind, tmp_path / name, facets)
    catalog = join((tmp_path / "entries").glob("*.yml"), tmp_path / "catalog.yml")
    files = write_damage_statistics(
        catalog, tmp_path / "s.parquet", k=2, variant="frobenius", ks=[1]
    )
    told = pd.read_parquet(files["damage_statistics"])
    assert {"cosine_distance", "block_influence", "miscoupling", "excess"} <= set(told["predictor"])
    assert told.loc[told["predictor"] == "jacobian_norm", "rho"].isna().all()  # it is constant
    assert (told["permutations"] <= 10).all()  # shifts and reflections of five blocks
    assert (told["models"] <= 1).all()
    pairs = pd.read_parquet(files["damage_pairs"])
    swapped = pairs[(pairs["treatment"] == "swap") & (pairs["block"] == 1)].iloc[0]
    assert swapped["miscoupling"] == pytest.approx((m[0, 0, 0, 1] + m[0, 0, 1, 0]) / 2)
    replaced = pairs[(pairs["treatment"] == "replace") & (pairs["block"] == 2)].iloc[0]
    assert replaced["miscoupling"] == m[0, 0, 1, replaced["block_other"] - 1]
    assert swapped["s1"] == 4.5

    write_entry(tmp_path / "other" / "svd.yml", "svd", tmp_path / "svd.zarr", facets)
    join((tmp_path / "other").glob("*.yml"), tmp_path / "none.yml")
    with pytest.raises(UserError, match="no ablation damage"):
        write_damage_statistics(
            open_catalog(tmp_path / "none.yml"),
            tmp_path / "t.parquet",
            **{"k": 2, "variant": "frobenius", "ks": []},
        )


def test_models_are_the_unit_of_a_relation_over_models() -> None:
    random = np.random.default_rng(0)
    rho = np.tanh(0.4 + 0.2 * random.normal(size=5))
    table = pd.DataFrame({"model": list("abcde"), "checkpoint": "main", "rho": rho})
    table = pd.concat([table, table.assign(checkpoint="init", rho=0.9)], ignore_index=True)
    same = {"treatment": "swap", "blocks": "two", "outcome": "kl", "predictor": "miscoupling"}
    table = table.assign(**same, k=10, variant="frobenius", given="", entries=100)
    facts = table[["model", "checkpoint"]].assign(origin=list("abcdd") * 2)
    facts["final"] = facts["checkpoint"].eq("main")
    found = over_models(table, facts.assign(untrained=~facts["final"]))
    z = np.arctanh(rho)
    units = [*z[:3], z[3:].mean()]  # d and e have the same weights
    expected = stats.ttest_1samp(units, 0)
    low, high = expected.confidence_interval()
    trained = found[found["checkpoint"] == "main"]
    assert (trained["models"] == 4).all()
    assert trained["mean_rho"].iloc[0] == pytest.approx(np.tanh(np.mean(units)))
    assert trained["mean_rho_p"].iloc[0] == pytest.approx(expected.pvalue)
    ends = (trained["mean_rho_low"].iloc[0], trained["mean_rho_high"].iloc[0])
    assert ends == pytest.approx(tuple(np.tanh([low, high])))
    untrained = found[found["checkpoint"] == "init"]
    assert untrained["mean_rho"].iloc[0] == pytest.approx(0.9)
    assert untrained["mean_rho_p"].isna().all()  # all the same: nothing to test with


def test_models_with_a_perfect_order_of_few_pairs_count_too() -> None:
    """One adjacent exchange among 4 gives ρ = 0.8: the end counts as 0.9, and of 2 as nothing."""
    assert fisher_z([1, -1, 0.8, 1], [4, 4, 4, 2]) == pytest.approx(
        [np.arctanh(0.9), -np.arctanh(0.9), np.arctanh(0.8), 0]
    )
    assert fisher_z([0.99], [1000]) == pytest.approx([np.arctanh(0.99)])
