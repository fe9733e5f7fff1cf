"""The point table: means over prompts and datasets, facts, which checkpoint is the last."""

import json

import numpy as np
import pandas as pd
import pytest
from example_store import example

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.reduce.coupling import miscoupling
from blockcoupling.reduce.overlap import overlap
from blockcoupling.reduce.tables import reduce_store
from blockcoupling.statistics.points import (
    at_last_token,
    checkpoint_facts,
    mean_over_prompts,
    points,
    prompt_values,
)
from blockcoupling.statistics.predictors import PREDICTORS
from blockcoupling.store.svd import SVD


def test_mean_over_prompts_then_datasets():
    values = pd.DataFrame(
        {
            "model": "m",
            "checkpoint": "c",
            "dataset": ["a", "a", "a", "a", "b", "b"],
            "prompt": list("123412"),
            "coupling": [0.0, 2.0, 4.0, 6.0, 10.0, 14.0],
        }
    )
    found = mean_over_prompts(values, measures=["coupling"]).squeeze()
    # Means 3 and 12; s² = 20/3 over 4 prompts and 8 over 2.
    assert found["coupling"] == pytest.approx((3 + 12) / 2)
    assert found["coupling_se"] == pytest.approx(np.sqrt(20 / 3 / 4 + 8 / 2) / 2)
    assert (found["datasets"], found["prompts"]) == (2, 6)


def test_error_is_missing_when_a_dataset_has_one_prompt():
    values = pd.DataFrame(
        {"model": "m", "checkpoint": "c", "dataset": list("aab"), "coupling": [1.0, 2.0, 3.0]}
    )
    found = mean_over_prompts(values, measures=["coupling"]).squeeze()
    assert found["coupling"] == pytest.approx(2.25)
    assert np.isnan(found["coupling_se"])


@pytest.mark.slow
def test_points_are_the_means_of_the_tables_at_the_last_token(study):
    table = points(prompt_values(study, k=5, variant="offdiagonal"), checkpoint_facts(study))
    row = table.query("model == 'neox-96' and checkpoint == 'step16'").squeeze()
    own = {"model": "neox-96", "checkpoint": "step16"}

    coupling = study.search(kind="coupling", **own).frame()
    coupling = coupling.query("k == 5 and variant == 'offdiagonal'")
    by_dataset = coupling.groupby("dataset")
    assert row["coupling"] == pytest.approx(by_dataset["coupling"].mean().mean())
    assert row["adjacent_coupling"] == pytest.approx(-by_dataset["adjacent"].mean().mean())

    trajectory = study.search(kind="trajectory", **own).frame().query("is_last")
    expected = trajectory.groupby("dataset")["expodistance"].mean().mean()
    assert row["expodistance"] == pytest.approx(expected)

    spectra = study.search(kind="spectra", **own).frame()
    assert row["s1"] == pytest.approx(spectra["s1"].mean())
    assert row["prompts"] == 12
    assert row["log_parameters"] == pytest.approx(np.log10(760_000))


@pytest.mark.slow
def test_tables_of_a_reduced_store_at_the_last_token_of_each_prompt(tmp_path):
    ds = example(prompts=2, tokens=[4, 6], all_tokens=True, k=3, overlaps=True)
    ids = {str(prompt): "f" for prompt in ds["prompt"].values}
    for n, length in enumerate((4, 6)):
        part = ds.isel(prompt=[n], token=slice(length), pair=slice(length))
        SVD.write(tmp_path / "parts", str(part["prompt"].item()), part, "f")
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", ids)
    own = {"model": "m", "checkpoint": "c", "dataset": "d"}
    written = reduce_store(tmp_path / "svd.zarr", tmp_path / "tables", k=[2], identity=own)
    for path in written:
        write_entry(tmp_path / "entries" / f"{path.stem}.yml", path.stem, path, own)
    catalog = join((tmp_path / "entries").iterdir(), tmp_path / "catalog.yml")

    found = prompt_values(catalog, k=2)
    assert found["prompt"].tolist() == list(ids)
    m = miscoupling(ds, k=2, variant="frobenius")
    for n, last in enumerate((3, 5)):  # the pair (t, t) of the last token t
        matrix = m.isel(prompt=n, pair=last).to_numpy()
        expected = -matrix[~np.eye(3, dtype=bool)].mean()
        # The store holds float32.
        assert found["coupling"][n] == pytest.approx(expected, rel=1e-5)
        shared = overlap(ds, 2, "input_overlap").isel(prompt=n, pair=last).to_numpy()
        mean = shared[~np.eye(3, dtype=bool)].mean()
        above = (mean - 2 / 8) / (1 - 2 / 8)
        assert found["input_overlap"][n] == pytest.approx(above, rel=1e-5)
        s1 = ds["S"].isel(prompt=n, pair=last, k=0).mean().item()
        assert found["s1"][n] == pytest.approx(s1, rel=1e-5)


def _records(folder, *records: dict) -> Catalog:
    entries = []
    for number, record in enumerate(records):
        path = folder / f"{number}.json"
        path.write_text(json.dumps(record))
        entry = folder / f"{number}.yml"
        facets = {"model": record["name"], "checkpoint": record["checkpoint"]}
        write_entry(entry, "model", path, facets)
        entries.append(entry)
    return join(entries, folder / "catalog.yml")


def test_which_checkpoints_are_untrained_and_which_is_final(tmp_path):
    catalog = _records(
        tmp_path,
        {"name": "ladder", "checkpoint": "step1000", "step": 1000, "tokens": 2e9},
        {"name": "ladder", "checkpoint": "step0", "step": 0, "tokens": 0},
        {"name": "ladder", "checkpoint": "step512", "step": 512, "tokens": 1e9},
        {"name": "hub", "checkpoint": "main", "parameters": 1000, "base": True},
        {"name": "hub", "checkpoint": "init"},
        {"name": "hub", "checkpoint": "step5", "step": 5},
    )
    facts = checkpoint_facts(catalog).set_index(["model", "checkpoint"])
    assert set(facts.index[facts["final"]]) == {("ladder", "step1000"), ("hub", "main")}
    assert set(facts.index[facts["untrained"]]) == {("ladder", "step0"), ("hub", "init")}
    assert np.isnan(facts["log_tokens"]["ladder", "step0"])
    assert facts["log_tokens"]["ladder", "step512"] == pytest.approx(9)
    assert facts["log_parameters"]["hub", "main"] == pytest.approx(3)
    assert facts["base"]["hub", "main"] == True  # noqa: E712  # NumPy's bool or Python's
    assert facts["family"].isna().all()


def test_a_quantized_copy_is_of_the_origin_of_the_model(tmp_path):
    place = {"id": "org/small", "revision": "abc", "init_seed": None}
    catalog = _records(
        tmp_path,
        {"name": "nf4", "checkpoint": "main", "quantization": "nf4", **place},
        {"name": "small", "checkpoint": "main", "quantization": None, **place},
        {"name": "small", "checkpoint": "init", "quantization": None, **place, "init_seed": 0},
    )
    facts = checkpoint_facts(catalog).set_index(["model", "checkpoint"])
    assert set(facts["origin"]) == {"small"}
    assert facts["weights"]["nf4", "main"] == facts["weights"]["small", "main"] == "small main"
    assert facts["weights"]["small", "init"] == "small init"


def test_a_measured_checkpoint_without_a_record_is_an_error(study, tmp_path):
    values = prompt_values(study)
    facts = checkpoint_facts(study).query("model != 'neox-64'")
    with pytest.raises(UserError, match="no model record in the catalog for: neox-64 step0, "):
        points(values, facts)


def _tables(folder, coupling: dict) -> Catalog:
    own = {"model": "m", "checkpoint": "c", "dataset": "d", "prompt": "p"}
    last = {"token": 9, "is_last": True, "line_shape_score": 1.5, "expodistance": 0.5}
    tables = {
        "coupling": {
            "variant": "frobenius",
            "k": 10,
            "coupling": -0.9,
            "adjacent": 0.8,
            **coupling,
        },
        "trajectory": {**last, "equidistance": 0.1},
        "spectra": {"token_in": 9, "token_out": 9, "block": 1},
    }
    for kind, row in tables.items():
        others = {p.column or p.name: 1.0 for p in PREDICTORS if p.kind == kind}
        pd.DataFrame([{**others, **own, **row}]).to_parquet(folder / f"{kind}.parquet")
        write_entry(folder / f"{kind}.yml", kind, folder / f"{kind}.parquet")
    return join(folder.glob("*.yml"), folder / "catalog" / "catalog.yml")


def test_a_study_that_did_not_measure_the_last_token(tmp_path):
    catalog = _tables(tmp_path, {"token_in": 3, "token_out": 9})
    with pytest.raises(UserError, match="no prompt was measured at its last token"):
        prompt_values(catalog)


def test_a_value_that_is_not_finite_is_named(tmp_path):
    catalog = _tables(tmp_path, {"token_in": 9, "token_out": 9, "adjacent": np.inf})
    with pytest.raises(MeasurementError, match="m c, d prompt p: adjacent_coupling"):
        prompt_values(catalog)


def test_a_k_that_was_not_reduced_is_named(study):
    with pytest.raises(UserError, match=r"no coupling for K = 7, .* has K = 1, 2, 5, 10, 20, 30"):
        prompt_values(study, k=7)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ([0, -2], 0),  # an image's class token, and the mean over its patches
        ([-2], -2),
        ([0], 0),
        ([0, -2, 4], 4),
        ([4, 0], 4),
    ],
)
def test_the_token_that_an_image_is_told_by(measured, told):
    same = dict.fromkeys(["model", "checkpoint", "dataset", "prompt"], "x")
    rows = [{**same, "token_in": t, "token_out": t, "value": 10 + t} for t in measured]
    rows.append({**same, "token_in": 0, "token_out": 4, "value": 99})
    kept = at_last_token(pd.DataFrame(rows), pd.DataFrame([{**same, "last": 4}]))
    assert kept["value"].tolist() == [10 + told]


def test_of_two_tokens_that_are_not_the_last_neither_is_told():
    same = dict.fromkeys(["model", "checkpoint", "dataset", "prompt"], "x")
    table = pd.DataFrame([{**same, "token_in": t, "token_out": t} for t in (0, 1)])
    with pytest.raises(UserError, match="no prompt was measured at its last token"):
        at_last_token(table, pd.DataFrame([{**same, "last": 4}]))
