"""Payloads are what the catalog's tables and stores hold, by other means."""

import shutil

import numpy as np
import pandas as pd
import pytest
from explored_study import MODELS, PROMPTS, STEPS

import blockcoupling as bc
from blockcoupling.catalog import join
from blockcoupling.errors import UserError
from blockcoupling.explore.pairs import _of_two
from blockcoupling.explore.payloads import payload

AT = {"model": "neox-b", "checkpoint": "step64", "dataset": "heldout"}
PATH = "0/neox-b/step64/heldout"


@pytest.fixture(scope="module")
def of(explored):
    return lambda key: payload([explored], ["small"], key)


def read(catalog, kind, **about):
    return catalog.one(kind=kind, **(about or AT)).read()


def test_index_lists_models_by_size_with_checkpoints_in_order(of):
    found = of("index")
    assert [each["model"] for each in found["models"]] == list(MODELS)
    checkpoints = [each["checkpoint"] for each in found["models"][1]["checkpoints"]]
    assert checkpoints == [f"step{step}" for step in STEPS]
    assert found["models"][1]["has"]["svd"]["step64"] == ["heldout"]
    assert found["catalogs"] == [{"title": "small", "k": 10, "variant": "frobenius"}]
    assert len(found["colours"]["diverging"]) == len(found["colours"]["sequential"])


def test_matrices_are_those_of_the_store(of, explored):
    found, table = of(f"matrices/{PATH}"), read(explored, "miscoupling")
    for v, variant in enumerate(found["variants"]):
        for n, k in enumerate(found["ks"]):
            own = table.sel(variant=variant, K=k)
            assert np.array_equal(found["m"][v, n], own["miscoupling_mean"])
            error = own["miscoupling_std"] / np.sqrt(own["miscoupling_count"])
            assert np.array_equal(found["se"][v, n], error, equal_nan=True)
    raw = table["output_overlap_mean"].to_numpy()
    chance = table["K"].to_numpy()[:, None, None] / 64
    # Two orders of the same few float64 operations.
    assert np.allclose(
        found["overlaps"]["output_overlap"], (raw - chance) / (1 - chance), atol=1e-14
    )


def test_matrices_at_each_token_are_those_of_the_store(images):
    model = next(
        each.metadata["model"] for each in images.entries.values() if "model" in each.metadata
    )
    about = {"model": model, "checkpoint": "epoch600", "dataset": "digits"}
    found, table = (
        payload([images], ["x"], f"matrices/0/{model}/epoch600/digits"),
        read(images, "miscoupling", **about),
    )
    assert found["tokens"] == ["class", "mean"]
    assert np.array_equal(found["by_tokens"]["m"], table["miscoupling_by_pair_mean"])
    error = table["miscoupling_by_pair_std"] / np.sqrt(table["miscoupling_by_pair_count"])
    assert np.array_equal(found["by_tokens"]["se"], error, equal_nan=True)


@pytest.mark.parametrize(("i", "j"), [(1, 2), (3, 1), (2, 2)])
def test_a_pair_has_m_of_every_prompt(of, explored, i, j):
    found, ds = of(f"pair/{PATH}/{i}/{j}"), read(explored, "svd")
    assert found["rows"]["prompt"] == list(PROMPTS)
    for v, variant in enumerate(found["variants"]):
        for n, k in enumerate(found["ks"]):
            m = bc.miscoupling(ds, k, variant).sel(block=i, block_other=j).to_numpy().ravel()
            assert np.allclose(found["m"][:, v, n], m, rtol=1e-12)


def test_products_are_those_of_the_store(of, explored):
    ds = read(explored, "svd")
    found = of(f"products/{PATH}/3/1/2")
    own = ds.isel(prompt=2, pair=0)
    assert np.array_equal(found["A"], own["A"].sel(block=3, block_other=1))
    assert np.array_equal(found["S"], own["S"].sel(block=[3, 1]))
    for name in ("output_overlap", "input_overlap", "composition"):
        assert np.array_equal(found["overlaps"][name], own[name].sel(block=3, block_other=1))
    assert "composition" not in of(f"products/{PATH}/1/3/0")["overlaps"]  # nothing is earlier
    same = of(f"products/{PATH}/2/2/2")
    assert np.array_equal(same["A"], own["A"].sel(block=2, block_other=2))
    assert np.array_equal(same["S"], own["S"].sel(block=[2, 2]))


@pytest.mark.parametrize(("i", "j"), [(1, 2), (2, 1), (1, 3)])
def test_a_pair_is_missing_where_either_jacobian_is_zero(explored, i, j):
    ds = read(explored, "svd").load()
    ds["S"][0, :, 1] = ds["A"][0, :, 1] = 0  # block 2 at the first prompt
    m = _of_two(ds, [1, 5], ["frobenius", "absolute"], i - 1, j - 1)
    expected = bc.miscoupling(ds, 5, "absolute").sel(block=i, block_other=j).to_numpy().ravel()
    assert np.isnan(m[0]).all() == (2 in (i, j))
    assert np.allclose(m[:, 1, 1], expected, rtol=1e-12, equal_nan=True)


def test_what_kind_of_maps_two_blocks_are(of, explored):
    own = read(explored, "svd").isel(prompt=2, pair=0)
    found = of(f"products/{PATH}/3/1/2")
    two = own.sel(block=[3, 1])
    assert np.array_equal(found["parts"]["attention"]["A"], own["A_attention"][2, 0])
    assert np.array_equal(found["parts"]["attention"]["S"], two["S_attention"])
    assert list(found["parts"]) == ["attention"]
    assert np.array_equal(found["cosine"], two["uv_cosine"])
    assert np.array_equal(found["eigenvalues"][:, 0], two["eigenvalues"].to_numpy().real)
    assert np.allclose(found["departure"], bc.departure_from_normality(two))
    for (block, vector, sign, k, rank), token in np.ndenumerate(two["readout_token"].to_numpy()):
        assert found["readout"][block][vector][sign][k][rank] == f" w{token}"
    assert np.array_equal(found["logits"], two["readout_logit"])


def test_texts_of_prompts(of):
    assert of("prompts/0/heldout")["texts"] == {p: f"Prompt {int(p)} of heldout" for p in PROMPTS}


def test_tokens_are_the_rows_of_the_table(of, explored):
    found, table = of(f"tokens/{PATH}"), read(explored, "tokenwise")
    long = [
        {**row, "variant": variant, "k": k, "miscoupling": found["m"][n, v, m]}
        for n, row in enumerate(found["rows"].to_dict("records"))
        for v, variant in enumerate(found["variants"])
        for m, k in enumerate(found["ks"])
    ]
    columns = [name for name in table if name not in AT]
    order = [name for name in columns if name != "miscoupling"]
    again = pd.DataFrame(long)[columns].sort_values(order, ignore_index=True)
    assert again.equals(table[columns].sort_values(order, ignore_index=True))
    assert len(found["texts"][PROMPTS[0]]) == read(explored, "svd").sizes["token"]


def test_course_has_means_over_prompts(of, explored):
    found = of("course/0/neox-b")
    measures = found["measures"].set_index(["measure", "checkpoint", "dataset"])
    table = read(explored, "coupling")
    own = table[(table["variant"] == "frobenius") & (table["k"] == 10)]["coupling"]
    row = measures.loc[("coupling", "step64", "heldout")]
    row = row[(row["variant"] == "frobenius") & (row["k"] == 10)].iloc[0]
    assert row["mean"] == pytest.approx(own.mean(), rel=1e-14)
    assert row["se"] == pytest.approx(own.std() / np.sqrt(len(PROMPTS)), rel=1e-12)
    last = read(explored, "trajectory").query("is_last")["line_shape_score"]
    assert measures.loc[("line_shape_score", "step64", "heldout"), "mean"] == pytest.approx(
        last.mean()
    )
    spectra = read(explored, "spectra")["s1"].mean()  # as many blocks at every prompt
    assert measures.loc[("s1", "step64", "heldout"), "mean"] == pytest.approx(spectra)
    score = read(explored, "score", model="neox-b", checkpoint="step64")
    own = found["scores"].query("checkpoint == 'step64'")
    assert own["value"].tolist() == score["value"].tolist()


def test_points_are_the_predictors_and_scores(of, explored):
    found, table = of("points/0"), explored.one(kind="predictors").read()
    assert found["points"]["coupling"].tolist() == table["coupling"].tolist()
    assert set(found["scores"]) == {"heldout.loss", "heldout.accuracy"}
    assert found["points"]["heldout.loss"].notna().all()
    assert found["t"][9] == pytest.approx(2.228139, abs=1e-6)  # any table of Student's t
    line = found["lines"].query("predictor == 'coupling' and subset == 'all checkpoints'")
    assert len(line) == 2


def test_points_of_a_catalog_without_statistics_are_calculated(explored):
    without = explored.only(
        name for name in explored if not name.startswith(("predictors", "correlation"))
    )
    found = payload([without], ["small"], "points/0")
    assert len(found["points"]) == len(MODELS) * len(STEPS)
    assert (found["k"], found["variant"]) == (30, "frobenius")


def test_damage_is_the_mean_over_texts(of, explored):
    found, table = of(f"damage/{PATH}")["changes"], read(explored, "damage")
    own = table.query("treatment == 'swap' and block == 1 and block_other == 3")
    row = found.query("treatment == 'swap' and block == 1 and block_other == 3").iloc[0]
    assert (row["kl"], row["texts"]) == (pytest.approx(own["kl"].mean()), len(PROMPTS))


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("nonsense/0", "no payload 'nonsense/0'"),
        ("matrices/0/neox-b", "no payload"),
        ("matrices/7/neox-b/step64/heldout", "no catalog number 7"),
        ("matrices/0/neox-b/step64/nowhere", "expected one entry"),
        (f"pair/{PATH}/1/9", "no block 9: the store has blocks 1 to 3"),
        (f"pair/{PATH}/x/1", "no block x"),
        (f"products/{PATH}/1/2/77", "no row 77"),
        ("pair/0/neox-b/step64/handwritten/1/2", "no store of neox-b step64 on handwritten"),
        ("course/0/../../etc", "no payload"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(of, key, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        of(key)
    assert "\n" not in str(caught.value)


def test_a_catalog_without_anything_to_show_is_refused(explored):
    with pytest.raises(UserError, match="nothing to explore"):
        payload([explored.only([])], ["x"], "index")


def test_a_catalog_that_is_gone_half_way_is_said(explored, tmp_path):
    table = explored.path("damage/neox-b/step64/heldout")
    copied = tmp_path / "damage.parquet"
    shutil.copy(table, copied)
    from blockcoupling.catalog import write_entry

    write_entry(tmp_path / "d.yml", "damage", copied, AT)
    catalog = join([tmp_path / "d.yml"], tmp_path / "catalog.yml")
    assert payload([catalog], ["x"], f"damage/{PATH}")
    copied.unlink()
    with pytest.raises(UserError, match="is gone; run the study again"):
        payload([catalog], ["x"], f"damage/{PATH}")
