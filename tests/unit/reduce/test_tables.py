import tracemalloc

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_store import example

from blockcoupling.catalog.columns import COLUMNS
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.reduce import chance, chunks, coupling, overlap, spectra, tables, trajectory
from blockcoupling.reduce.tables import reduce_store
from blockcoupling.store.svd import CKA, SVD

pytestmark = pytest.mark.filterwarnings("error")

IDENTITY = {"model": "m", "checkpoint": "step0", "dataset": "d"}
START = ["model", "checkpoint", "dataset", "prompt"]
PAIR = [*START, "token_in", "token_out"]
KEYS = [*PAIR, "token", "variant", "k", "block", "distance"]
TABLES = [name for name in COLUMNS if name not in ("tokenwise", "damage", "score")]


def write(path, ds, **attrs):
    """Write a store in one go, also one with numbers that `SVD.write` would refuse."""
    chunks = {
        name: {"chunks": [1 if dim in ("prompt", "pair") else ds.sizes[dim] for dim in data.dims]}
        for name, data in ds.variables.items()
    }
    ds = ds.assign_attrs(attrs)
    ds.to_zarr(path, zarr_format=3, consolidated=False, mode="w", encoding=chunks)
    return path


def read(out):
    """All tables and the matrices in a directory."""
    frames = {name: pd.read_parquet(out / f"{name}.parquet") for name in TABLES}
    return frames, xr.open_zarr(out / "miscoupling.zarr", consolidated=False).load()


@pytest.fixture
def ds():
    lengths = [2, 4, 3]
    return example(3, blocks=4, tokens=lengths, all_tokens=True, swapped=True, overlaps=True)


@pytest.fixture
def reduced(tmp_path, ds):
    reduce_store(write(tmp_path / "svd.zarr", ds), tmp_path, [1, 3], None, IDENTITY)
    return read(tmp_path)


def test_columns_and_rows(reduced):
    frames, _ = reduced
    pairs, blocks = 2 + 4 + 3, 4
    rows = {
        "coupling": pairs * 5 * 2,
        "overlap": pairs * 2,
        "locality": pairs * 5 * 2 * (blocks - 1),
        "trajectory": pairs,
        "whole_prompt": 3,
        "spectra": pairs * blocks,
        "singular_values": pairs * blocks * 4,
        "inverse_depth_fit": pairs * 4,
    }
    for name in TABLES:
        columns, frame = COLUMNS[name], frames[name]
        assert list(frame.columns) == list(columns)
        assert [str(kind) for kind in frame.dtypes] == [each.dtype for each in columns.values()]
        assert len(frame) == rows[name]
        keys = [column for column in columns if column in KEYS]
        assert not frame.duplicated(keys).any()
        assert (frame[list(IDENTITY)] == list(IDENTITY.values())).all(axis=None)
        assert frame["prompt"].unique().tolist() == ["p0", "p1", "p2"]
    assert frames["coupling"]["variant"].unique().tolist() == list(OF_BLOCKS)


def test_numbers_are_those_of_the_functions(ds, reduced):
    frames, _ = reduced
    table = frames["coupling"].set_index(["prompt", "token_in", "variant", "k"])
    local = frames["locality"].set_index(["prompt", "token_in", "variant", "k", "distance"])
    for variant in OF_BLOCKS:
        for k in (1, 3):
            expected = coupling.coupling(ds, k, variant).values[1, 2]
            row = table.loc[("p1", 2, variant, k)]
            assert row["coupling"] == pytest.approx(expected, rel=1e-12)
            assert row["miscoupling"] == -row["coupling"]
            m = coupling.miscoupling(ds, k, variant).values[1, 2]
            adjacent = np.mean([m[i, j] for i, j in np.ndindex(4, 4) if abs(i - j) == 1])
            assert row["adjacent"] == pytest.approx(adjacent, rel=1e-12)
            assert local.loc[("p1", 2, variant, k, 1), "miscoupling"] == row["adjacent"]
            assert local.loc[("p1", 2, variant, k, 3), "miscoupling"] == pytest.approx(
                (m[0, 3] + m[3, 0]) / 2, rel=1e-12
            )

    way = frames["trajectory"].set_index(["prompt", "token"])
    for name in ("line_shape_score", "expodistance", "equidistance"):
        expected = getattr(trajectory, name)(ds).values[2, 1]
        assert way.loc[("p2", 1), name] == pytest.approx(expected, rel=1e-12)
    assert way.index[way["is_last"]].tolist() == [("p0", 1), ("p1", 3), ("p2", 2)]

    row = frames["spectra"].set_index(["prompt", "token_in", "block"]).loc[("p1", 0, 3)]
    at = {"prompt": 1, "pair": 0, "block": 2}
    assert row["jacobian_norm"] == ds["jacobian_norm"].isel(at).item()
    assert np.isnan(row["jacobian_norm_error"])
    assert row["s1"] == ds["S"].isel(at)[0].item()
    assert row["svd_residual"] == ds["svd_residual"].isel(at).item()
    for name in ("effective_rank", "participation_ratio"):
        expected = getattr(spectra, name)(ds["S"]).isel(at).item()
        assert row[name] == pytest.approx(expected, rel=1e-12)
        assert np.isnan(row[f"{name}_full"])
    values = frames["singular_values"].set_index(["prompt", "token_in", "block", "k"])["s"]
    assert values.loc[("p1", 0, 3, 2)] == ds["S"].isel(at)[1].item()
    fit = frames["inverse_depth_fit"].set_index(["prompt", "token_in", "k"])
    expected = spectra.inverse_depth_fit(ds["S"]).isel(prompt=1, pair=0, k=1)
    assert fit.loc[("p1", 0, 2), "r2"] == pytest.approx(expected["r2"].item(), rel=1e-12)


def test_overlaps_are_those_of_the_functions(ds, reduced):
    frames, matrices = reduced
    table = frames["overlap"].set_index(["prompt", "token_in", "k"])
    assert np.isfinite(table[[*OVERLAPS]]).all(axis=None)
    for kind in OVERLAPS:
        for k in (1, 3):
            o = overlap.overlap(ds, k, kind)
            row = table.loc[("p1", 2, k)]
            own = o.values[1, 2]
            pairs = [(i, j) for i, j in np.ndindex(4, 4) if (j < i if "comp" in kind else j != i)]
            assert row[kind] == pytest.approx(np.mean([own[at] for at in pairs]), rel=1e-12)
            assert row["chance"] == k / 8
            expected = (row[kind] - k / 8) / (1 - k / 8)
            assert row[f"{kind}_excess"] == pytest.approx(expected, rel=1e-12)
        by_prompt = np.stack([o.values[p, :n].mean(0) for p, n in enumerate((2, 4, 3))])
        chosen = matrices.sel(K=3)
        assert chosen[f"{kind}_mean"].dims == ("block", "block_other")
        np.testing.assert_allclose(chosen[f"{kind}_mean"], by_prompt.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            chosen[f"{kind}_std"], by_prompt.std(0, ddof=1), rtol=1e-9, atol=1e-15
        )


def test_numbers_of_whole_prompts(tmp_path, ds):
    random = np.random.default_rng(5)
    alike = random.uniform(size=(3, 4))
    alike[2] = np.nan  # a prompt of one token
    own = {"rankme": random.uniform(1, 3, 3), "own_loss": np.array([2.5, 3.5, np.nan])}
    ds = ds.assign(
        {"cka": (("prompt", "block"), alike), **{n: (("prompt",), v) for n, v in own.items()}}
    ).assign_attrs(CKA)
    reduce_store(write(tmp_path / "svd.zarr", ds), tmp_path, [2], ["frobenius"], IDENTITY)
    found = read(tmp_path)[0]["whole_prompt"]
    # The first block's input is no block's output.
    np.testing.assert_allclose(found["cka"], alike[:, 1:].mean(axis=1), rtol=1e-14)
    for name, values in own.items():
        np.testing.assert_array_equal(found[name], values)
    for row, length in zip(found.itertuples(), (2, 4, 3), strict=True):
        steps = np.linalg.cholesky(ds["gram"].sel(prompt=row.prompt).values[:length])
        states = steps.cumsum(axis=1)  # vectors whose inner products are those of the states
        unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
        cosines = np.einsum("tse,tse->ts", unit[:, :-1], unit[:, 1:])
        assert row.block_influence == pytest.approx(1 - cosines.mean(), rel=1e-10)


def test_a_biased_cka_of_an_older_version_is_not_taken_for_the_present_one(tmp_path, ds, caplog):
    ds = ds.assign({"cka": (("prompt", "block"), np.full((3, 4), 0.9))})
    reduce_store(write(tmp_path / "svd.zarr", ds), tmp_path, [2], ["frobenius"], IDENTITY)
    assert read(tmp_path)[0]["whole_prompt"]["cka"].isna().all()
    assert "whose CKA is biased" in caplog.text


def test_a_store_of_an_older_version_has_no_numbers_of_whole_prompts(reduced):
    found = reduced[0]["whole_prompt"]
    assert found[["cka", "rankme", "own_loss"]].isna().all(axis=None)
    assert found["block_influence"].notna().all()  # from inner products that it has


def test_a_store_without_overlaps_leaves_them_empty(tmp_path):
    path = write(tmp_path / "svd.zarr", example(2))
    reduce_store(path, tmp_path, [2], ["frobenius"], IDENTITY)
    frames, matrices = read(tmp_path)
    assert list(frames["overlap"].columns) == list(COLUMNS["overlap"])
    assert frames["overlap"][[*OVERLAPS]].isna().all(axis=None)
    assert (frames["overlap"]["chance"] == 2 / 8).all()
    assert not [name for name in matrices if "overlap" in name or "composition" in name]


def test_matrices_are_means_over_pairs_and_then_prompts(ds, reduced):
    _, matrices = reduced
    assert matrices["miscoupling_mean"].dims == ("variant", "K", "block", "block_other")
    assert matrices["K"].values.tolist() == [1, 3]
    assert {name: matrices.attrs[name] for name in IDENTITY} == IDENTITY
    assert matrices.attrs["model_id"] == "example"
    m = coupling.miscoupling(ds, 3, "absolute").values
    by_prompt = np.stack([m[0, :2].mean(0), m[1, :4].mean(0), m[2, :3].mean(0)])
    chosen = matrices.sel(variant="absolute", K=3)
    np.testing.assert_allclose(chosen["miscoupling_mean"], by_prompt.mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        chosen["miscoupling_std"], by_prompt.std(0, ddof=1), rtol=1e-9, atol=1e-15
    )
    assert (matrices["miscoupling_count"] == 3).all()


def test_matrices_of_tokens_are_kept_apart_where_all_prompts_have_them(ds, reduced, tmp_path):
    assert "miscoupling_by_pair_mean" not in reduced[1]  # prompts of another length each
    same = example(3, tokens=3, all_tokens=True)
    path = write(tmp_path / "svd.zarr", same)
    reduce_store(path, tmp_path, [1, 3], ["frobenius", "absolute"], IDENTITY)
    _, matrices = read(tmp_path)
    assert matrices["tokens"].values.tolist() == ["0", "1", "last"]
    m = coupling.miscoupling(same, 3, "absolute").values
    chosen = matrices.sel(variant="absolute", K=3)
    apart = chosen["miscoupling_by_pair_mean"].transpose("pair", "block", "block_other")
    np.testing.assert_allclose(apart, m.mean(0), rtol=1e-12)
    np.testing.assert_allclose(chosen["miscoupling_mean"], m.mean((0, 1)), rtol=1e-12)


@pytest.mark.parametrize("together", [1, 2, 32])
def test_how_many_prompts_a_kernel_gets_changes_no_bit(tmp_path, monkeypatch, together):
    ds = example(7, tokens=[5, 3, 4, 2, 5, 3, 4], all_tokens=True, swapped=True)
    path = write(tmp_path / "svd.zarr", ds)
    reduce_store(path, tmp_path / "four", [1, 3], None, IDENTITY)
    monkeypatch.setattr(chunks, "MOST_PROMPTS", together)
    reduce_store(path, tmp_path / "other", [1, 3], None, IDENTITY)
    (four, matrices), (other, same) = read(tmp_path / "four"), read(tmp_path / "other")
    for name in four:
        pd.testing.assert_frame_equal(four[name], other[name], check_exact=True)
    xr.testing.assert_identical(matrices, same)


@pytest.mark.parametrize(("blocks", "prompts"), [(80, 1), (40, 2), (32, 4), (4, 4)])
def test_a_chunk_of_large_matrices_is_one_prompt(blocks, prompts):
    each = 4 * (blocks * 50) ** 2
    assert chunks.prompts_of_a_chunk(each) == prompts
    assert prompts * each <= chunks.most_bytes_of_a_chunk(each)


def test_one_prompt_has_no_spread(tmp_path):
    path = write(tmp_path / "svd.zarr", example(1))
    reduce_store(path, tmp_path, [2], ["frobenius"], IDENTITY)
    _, matrices = read(tmp_path)
    assert np.isfinite(matrices["miscoupling_mean"]).all()
    assert np.isnan(matrices["miscoupling_std"]).all()


def test_full_spectra_are_summarised_where_they_are(tmp_path):
    ds = example(2)
    full = np.random.default_rng(0).uniform(1, 2, size=(2, 1, 3, 8)).astype("float32")
    ds["S_full"] = (("prompt", "pair", "block", "k_full"), full)
    path = write(tmp_path / "svd.zarr", ds.assign_coords(k_full=np.arange(1, 9)))
    reduce_store(path, tmp_path, [2], ["frobenius"], IDENTITY)
    row = read(tmp_path)[0]["spectra"].iloc[1]
    for name in ("effective_rank", "participation_ratio"):
        expected = getattr(spectra, f"{name}_kernel")(full[0, 0, 1])
        assert row[f"{name}_full"] == pytest.approx(expected, rel=1e-12)


def test_the_order_of_prompts_changes_nothing(tmp_path, ds):
    results = []
    for name, order in {"a": [0, 1, 2], "b": [2, 0, 1]}.items():
        path = write(tmp_path / f"{name}.zarr", ds.isel(prompt=order))
        reduce_store(path, tmp_path / name, [2], None, IDENTITY)
        results.append(read(tmp_path / name))
    for table in TABLES:
        a, b = (frames[table].sort_values(list(COLUMNS[table])) for frames, _ in results)
        pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))
    xr.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12)


def test_prompts_reduced_some_at_a_time_give_the_same(tmp_path, reduced, monkeypatch):
    monkeypatch.setattr(chunks, "BATCH", 2)
    reduce_store(tmp_path / "svd.zarr", tmp_path / "pieces", [1, 3], None, IDENTITY)
    frames, matrices = read(tmp_path / "pieces")
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, reduced[0][name])
    xr.testing.assert_allclose(matrices, reduced[1], rtol=1e-12)


def test_each_product_is_read_once_for_all_variants_and_k(tmp_path, ds, monkeypatch):
    """Dask calls the kernel once a prompt, pair and product; a second call would read A again."""
    calls = []

    def counting(a, *arguments, **options):
        if a.size:  # Dask also tries it on nothing, to learn the type
            calls.append(a.shape)
        return kernel(a, *arguments, **options)

    kernel = coupling.miscoupling_kernel
    monkeypatch.setattr(coupling, "miscoupling_kernel", counting)
    path = tmp_path / "svd.zarr"
    SVD.write(tmp_path / "parts", "p1", ds.isel(prompt=[1]), "x")
    SVD.join(tmp_path / "parts", path, {"p1": "x"})
    reduce_store(path, tmp_path, [1, 2, 4], None, IDENTITY)
    assert calls == [(1, 1, 4, 4, 4, 4)] * 4 * 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_prompts(tmp_path, monkeypatch):
    """A and A_swapped take 720 kB a prompt: 10 prompts have 5.8 MB more of them than 2.

    Dask's own records of 8 more prompts, and a batch that the collector has not come to, take less
    than half of that.
    """
    monkeypatch.setattr(chunks, "BATCH", 2)
    one = example(1, blocks=6, k=50, embed=50, tokens=1, swapped=True)
    both = one["A"].nbytes + one["A_swapped"].nbytes
    assert both == 720_000
    peak = {}
    for number in (2, 2, 10):  # the first time, imports are counted as well
        ds = one.isel(prompt=[0] * number)
        ds = ds.assign_coords(prompt=np.array([f"p{index}" for index in range(number)], "O"))
        path = write(tmp_path / "svd.zarr", ds)
        with dask.config.set(scheduler="synchronous"):
            tracemalloc.start()
            reduce_store(path, tmp_path / "out", [10], None, IDENTITY)
            peak[number] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak[10] - peak[2] < 4 * both


def test_k_beyond_the_store_is_left_out_and_said(tmp_path, caplog):
    path = write(tmp_path / "svd.zarr", example(1))
    with caplog.at_level("INFO"):
        reduce_store(path, tmp_path, identity=IDENTITY)
    assert "K = 5, 10, 20, 30, 50 omitted: the store has 4" in caplog.text
    frames, _ = read(tmp_path)
    assert frames["coupling"]["k"].unique().tolist() == [1, 2]
    assert "swapped" not in frames["coupling"]["variant"].unique()
    with pytest.raises(UserError, match=r"the store lacks K = 10: it has 4"):
        reduce_store(path, tmp_path, [10], None, IDENTITY)


def test_identity_comes_from_the_store_or_is_asked_for(tmp_path):
    path = write(tmp_path / "svd.zarr", example(1), **IDENTITY)
    reduce_store(path, tmp_path, [2], ["frobenius"])
    assert read(tmp_path)[0]["coupling"]["checkpoint"].unique().tolist() == ["step0"]
    path = write(tmp_path / "svd.zarr", example(1), model="m", checkpoint="other")
    reduce_store(path, tmp_path, [2], ["frobenius"], {"dataset": "d", "checkpoint": "main"})
    assert read(tmp_path)[0]["coupling"].loc[0, START[:3]].tolist() == ["m", "main", "d"]
    path = write(tmp_path / "svd.zarr", example(1), model="m")
    with pytest.raises(UserError, match="say which checkpoint, dataset the store is of"):
        reduce_store(path, tmp_path)


def test_a_variant_that_cannot_be_had_is_refused(tmp_path):
    path = write(tmp_path / "svd.zarr", example(1))
    with pytest.raises(UserError, match="extract again"):
        reduce_store(path, tmp_path / "out", [2], ["frobenius", "swapped"], IDENTITY)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_hole_in_the_store_is_an_error(tmp_path, ds):
    ds["A"][{"prompt": 1, "pair": 2, "block": 0, "block_other": 1}] = np.nan
    path = write(tmp_path / "svd.zarr", ds)
    with pytest.raises(MeasurementError, match="not finite for prompt p1"):
        reduce_store(path, tmp_path / "out", [2], None, IDENTITY)
    assert list((tmp_path / "out").iterdir()) == []


def test_chance_and_excess_are_means_over_the_same_pairs(ds, reduced):
    table = reduced[0]["coupling"].set_index(["prompt", "token_in", "variant", "k"])
    different = ~np.eye(4, dtype=bool)
    for variant in OF_BLOCKS:
        row = table.loc[("p1", 2, variant, 3)]
        by_chance = chance.chance(ds, 3, variant).values[1, 2]
        assert row["chance"] == pytest.approx(by_chance.mean(), rel=1e-12)
        above = chance.excess(ds, 3, variant).values[1, 2]
        assert row["excess"] == pytest.approx(above[different].mean(), rel=1e-12)
    # With one vector there is nothing off the diagonal, by chance or otherwise.
    assert np.isnan(table.loc[("p1", 2, "offdiagonal", 1), "excess"])


def test_a_store_that_does_not_say_how_wide_the_model_is(tmp_path, ds):
    del ds.attrs["dimension"]
    reduce_store(write(tmp_path / "svd.zarr", ds), tmp_path, [3], ["frobenius"], IDENTITY)
    frame = read(tmp_path)[0]["coupling"]
    assert frame[["chance", "excess"]].isna().all(axis=None)
    assert frame["coupling"].notna().all()


def test_a_prompt_that_is_missing_altogether_is_an_error(tmp_path, ds):
    for name in ("A", "S"):
        ds[name][{"prompt": 1, "pair": 2}] = np.nan
    path = write(tmp_path / "svd.zarr", ds)
    with pytest.raises(MeasurementError, match="not finite for prompt p1"):
        reduce_store(path, tmp_path / "out", [2], ["frobenius"], IDENTITY)


def with_idle(ds, **at):
    """The dataset of a model in which a block does nothing for some prompts."""
    ds = ds.copy(deep=True)
    for name in ("S", "A", "A_swapped", "jacobian_norm", "svd_residual"):
        ds[name][at] = 0
    return ds


def test_a_block_that_does_nothing_leaves_the_others_their_numbers(tmp_path, ds, caplog):
    idle = with_idle(ds, prompt=1, block=2)
    reduce_store(write(tmp_path / "svd.zarr", idle), tmp_path, [3], None, IDENTITY)
    frames, matrices = read(tmp_path)
    table = frames["coupling"].set_index(["prompt", "token_in", "variant"])
    m = coupling.miscoupling(ds, 3, "frobenius").values
    for prompt, pair, left in ((1, 2, [0, 1, 3]), (2, 1, [0, 1, 2, 3])):
        row = table.loc[(f"p{prompt}", pair, "frobenius")]
        pairs = [(i, j) for i in left for j in left if i != j]
        assert row["pairs"] == len(pairs)
        mean = np.mean([m[prompt, pair, i, j] for i, j in pairs])
        assert row["miscoupling"] == pytest.approx(mean, rel=1e-12)
        beside = np.mean([m[prompt, pair, i, j] for i, j in pairs if abs(i - j) == 1])
        assert row["adjacent"] == pytest.approx(beside, rel=1e-12)
    count = matrices["miscoupling_count"].sel(variant="frobenius", K=3)
    expected = np.full((4, 4), 3)
    expected[2, :] = expected[:, 2] = 2
    np.testing.assert_array_equal(count, expected)
    by_prompt = np.stack([m[0, :2].mean(0), m[2, :3].mean(0)])
    mean, std = (
        matrices[f"miscoupling_{name}"].sel(variant="frobenius", K=3).values[2, 0]
        for name in ("mean", "std")
    )
    assert mean == pytest.approx(by_prompt[:, 2, 0].mean(), rel=1e-12)
    assert std == pytest.approx(by_prompt[:, 2, 0].std(ddof=1), rel=1e-9)
    assert "block 3 has a Jacobian that is exactly zero for 4 of its prompts" in caplog.text


def test_nothing_left_to_compare_is_undefined_and_not_damaged(tmp_path, ds):
    idle = with_idle(ds, prompt=1, pair=2, block=slice(1, 4))
    reduce_store(write(tmp_path / "svd.zarr", idle), tmp_path, [3], None, IDENTITY)
    rows = read(tmp_path)[0]["coupling"].set_index(["prompt", "token_in"])
    assert (rows.loc[("p1", 2), "pairs"] == 0).all()
    assert rows.loc[("p1", 2), ["coupling", "miscoupling", "adjacent"]].isna().all(axis=None)
    others = rows.drop(index=[("p1", 2)])
    assert others[["coupling", "miscoupling", "adjacent"]].notna().all(axis=None)


def test_undefined_scores_are_counted_in_the_log(tmp_path, ds, caplog):
    ds["gram"][{"prompt": 2, "token": 1, "state": 2}] = 0
    ds["gram"][{"prompt": 2, "token": 1, "state_other": 2}] = 0
    reduce_store(write(tmp_path / "svd.zarr", ds), tmp_path, [2], None, IDENTITY)
    assert "1 tokens have a step" in caplog.text
    assert "token 1 of prompt p2" in caplog.text
    frame = read(tmp_path)[0]["trajectory"]
    assert frame["line_shape_score"].isna().sum() == 1
    assert frame["equidistance"].notna().all()


def test_old_tables_are_replaced_whole(tmp_path, ds):
    path = write(tmp_path / "svd.zarr", ds)
    reduce_store(path, tmp_path / "out", [1, 2], None, IDENTITY)
    (tmp_path / "out" / ".tmp-coupling.parquet").write_text("left by a killed job")
    written = reduce_store(path, tmp_path / "out", [3], ["absolute"], IDENTITY)
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
    frames, matrices = read(tmp_path / "out")
    assert frames["coupling"]["k"].unique().tolist() == [3]
    assert matrices["variant"].values.tolist() == ["absolute"]


@pytest.mark.slow
def test_a_damaged_store_is_named_not_averaged_over(tmp_path):
    for name in ("p0", "p1"):
        part = example(1).assign_coords(prompt=np.array([name], dtype=object))
        SVD.write(tmp_path / "parts", str(part["prompt"].item()), part, "x")
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", {"p0": "x", "p1": "x"})
    chunk = tmp_path / "svd.zarr" / "A" / "c.1.0.0.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(
        MeasurementError, match=r"svd\.zarr is damaged: A/c\.1\.0\..* cannot be read"
    ):
        reduce_store(tmp_path / "svd.zarr", tmp_path / "out", [2], identity=IDENTITY)
    assert list((tmp_path / "out").glob("*.parquet")) == []


def test_pages_of_tables_carry_checksums(tmp_path):
    """A flipped bit in a page of numbers is refused by readers that look (the catalog's does)."""
    path = tmp_path / "t.parquet"
    values = np.random.default_rng(0).standard_normal(1000)
    with tables.parquet_table(path) as append:
        append(pd.DataFrame({"x": values}))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # among 8000 bytes of numbers, which do not compress
    path.write_bytes(content)
    assert not np.array_equal(pd.read_parquet(path)["x"], values)
    with pytest.raises(OSError, match="CRC"):
        pd.read_parquet(path, page_checksum_verification=True)
