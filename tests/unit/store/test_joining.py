import itertools
import json
import tracemalloc
from functools import partial

import numpy as np
import pytest
import xarray as xr
from example_store import example

import blockcoupling as bc
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store import joining, svd
from blockcoupling.store.parts import fingerprint, finished
from blockcoupling.store.schema import SCHEMA_VERSION, SchemaError
from blockcoupling.store.svd import SVD, open_store

pytestmark = pytest.mark.filterwarnings("error")


def prompt(name, seed=0, **options):
    """A dataset of one prompt with the given id."""
    ds = example(1, seed=seed, **options)
    return ds.assign_coords(prompt=np.array([name], dtype=object))


def write(parts, names, **options):
    for seed, name in enumerate(names):
        SVD.write(parts, name, prompt(name, seed=seed, **options), f"fingerprint of {name}")
    return {name: f"fingerprint of {name}" for name in names}


def test_round_trip(tmp_path):
    whole = example(3, tokens=[4, 6, 5], all_tokens=True, vectors=True, swapped=True, blocks=4)
    expected = {}
    for index, length in enumerate(whole["tokens"].values):
        part = whole.isel(prompt=[index], token=slice(length), pair=slice(length))
        SVD.write(tmp_path / "parts", f"p{index}", part, "same")
        expected[f"p{index}"] = "same"
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    read = open_store(tmp_path / "svd.zarr")
    xr.testing.assert_equal(read.compute(), whole)
    assert read.attrs == whole.attrs
    for name, variable in whole.variables.items():
        assert read[name].dtype.kind in "T" or read[name].dtype == variable.dtype, name


def test_what_no_prompt_has_is_there_as_nan(tmp_path):
    """An image has no next token, and no loss on it; its store is whole all the same."""
    for name in "abc":
        part = prompt(name).assign(own_loss=("prompt", [np.nan]))
        SVD.write(tmp_path, name, part, name)
    SVD.join(tmp_path, tmp_path / "svd.zarr", dict(zip("abc", "abc", strict=True)))
    assert open_store(tmp_path / "svd.zarr")["own_loss"].isnull().all()


def test_half_precision_vectors_stay_so(tmp_path):
    half = prompt("a", vectors=True)
    half = half.assign(U=half["U"].astype("float16"), V=half["V"].astype("float16"))
    SVD.write(tmp_path, "a", half, "x")
    SVD.join(tmp_path, tmp_path / "svd.zarr", {"a": "x"})
    assert open_store(tmp_path / "svd.zarr")["U"].dtype == np.float16


def test_opening_is_lazy_with_one_chunk_a_prompt_and_pair(tmp_path):
    expected = write(tmp_path / "parts", "abc", tokens=3, all_tokens=True)
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    ds = open_store(tmp_path / "svd.zarr")
    assert ds["A"].chunksizes == {
        "prompt": (1, 1, 1),
        "pair": (1, 1, 1),
        "block": (3,),
        "block_other": (3,),
        "k": (4,),
        "k_other": (4,),
    }
    assert all(ds[name].chunks for name in ds.data_vars)
    assert not any(coord.chunks for coord in ds.coords.values())


def test_prompts_stand_in_the_order_asked_for(tmp_path):
    expected = write(tmp_path / "parts", ["b", "c", "a"])
    for order in (["b", "c", "a"], ["a", "b", "c"], ["c"]):
        assert finished(tmp_path / "parts", expected) == set("abc")
        SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", {p: expected[p] for p in order})
        ds = open_store(tmp_path / "svd.zarr")
        assert ds["prompt"].values.tolist() == order
        for name in order:
            seed = ["b", "c", "a"].index(name)
            xr.testing.assert_equal(ds.sel(prompt=[name]).compute(), prompt(name, seed))


def test_many_small_prompts_share_a_shard_and_come_out_the_same(tmp_path, monkeypatch):
    """Shards of the small variables smaller than the store, and not dividing it."""
    monkeypatch.setattr(svd, "_SHARD_BYTES", 3 * 5 * 4 * 4 * 8)  # three Gram matrices
    names = [f"p{index}" for index in range(8)]
    expected = write(tmp_path / "parts", names)
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    ds = open_store(tmp_path / "svd.zarr").compute()
    for seed, name in enumerate(names):
        xr.testing.assert_equal(ds.sel(prompt=[name]), prompt(name, seed))
    files = list((tmp_path / "svd.zarr" / "gram").glob("c.*"))
    assert len(files) == 3
    assert len(list((tmp_path / "svd.zarr" / "A").glob("c.*"))) == 8


def test_any_id_names_a_part(tmp_path):
    names = ["a/b", "../up", ".tmp-x", "Paris? é 中", "100%", "a b"]
    expected = write(tmp_path / "parts", names)
    assert len(list((tmp_path / "parts").iterdir())) == len(names)
    assert list(tmp_path.iterdir()) == [tmp_path / "parts"]
    assert finished(tmp_path / "parts", expected) == set(names)
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    assert open_store(tmp_path / "svd.zarr")["prompt"].values.tolist() == names
    with pytest.raises(UserError, match="too long for a file name"):
        SVD.write(tmp_path / "parts", "x" * 300, prompt("x" * 300), "x")


def test_leftovers_of_a_killed_writer_do_not_count(tmp_path):
    expected = write(tmp_path, ["a", "b"])
    (tmp_path / "b.part").rename(tmp_path / ".tmp-b.part")
    assert finished(tmp_path, expected) == {"a"}
    with pytest.raises(UserError, match=r"1 of 2 prompts are not measured yet.*is b"):
        SVD.join(tmp_path, tmp_path / "svd.zarr", expected)
    SVD.write(tmp_path, "b", prompt("b"), expected["b"])
    assert finished(tmp_path, expected) == {"a", "b"}
    assert not (tmp_path / ".tmp-b.part").exists()


def test_nothing_is_finished_where_nothing_is(tmp_path):
    assert finished(tmp_path / "nowhere", {"a": "x"}) == set()


def test_other_settings_are_measured_again_with_a_line_in_the_log(tmp_path, caplog):
    write(tmp_path, ["a", "b"])
    assert finished(tmp_path, {"a": "other", "b": "fingerprint of b"}) == {"b"}
    assert "prompt a" in caplog.text
    assert "prompt b" not in caplog.text


def test_a_damaged_part_is_measured_again(tmp_path, caplog):
    expected = write(tmp_path, ["a"])
    part = tmp_path / "a.part"
    part.write_bytes(part.read_bytes()[:-50])
    assert finished(tmp_path, expected) == set()
    assert "damaged" in caplog.text


def test_parts_that_were_measured_differently_are_not_mixed(tmp_path):
    SVD.write(tmp_path, "a", prompt("a"), "same")
    SVD.write(tmp_path, "b", prompt("b").assign_attrs(torch_version="1.0"), "same")
    with pytest.raises(UserError, match=r"torch_version is 'none' and '1\.0'.*Remove") as error:
        SVD.join(tmp_path, tmp_path / "svd.zarr", {"a": "same", "b": "same"})
    assert "revision" not in str(error.value)
    SVD.write(tmp_path, "b", prompt("b", k=3), "same")
    with pytest.raises(SchemaError, match="`k` has 4 and 3 entries"):
        SVD.join(tmp_path, tmp_path / "svd.zarr", {"a": "same", "b": "same"})
    assert not (tmp_path / "svd.zarr").exists()


def test_a_merge_that_fails_keeps_the_old_store(tmp_path, monkeypatch):
    expected = write(tmp_path / "parts", ["a", "b"])
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)

    def killed(*arguments):
        raise KeyboardInterrupt

    assert finished(tmp_path / "parts", expected) == {"a", "b"}
    monkeypatch.setattr(joining, "_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", {"b": expected["b"]})
    assert open_store(tmp_path / "svd.zarr")["prompt"].values.tolist() == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "svd.zarr"]


def test_bad_data_is_not_written(tmp_path):
    with pytest.raises(SchemaError, match="gram: missing"):
        SVD.write(tmp_path, "a", prompt("a").drop_vars("gram"), "x")
    bad = prompt("a")
    bad["A"][...] = np.nan
    with pytest.raises(MeasurementError, match="A is not finite at prompt a"):
        SVD.write(tmp_path, "a", bad, "x")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="no store at"):
        open_store(tmp_path / "nothing")
    SVD.join(tmp_path, tmp_path / "a.zarr", write(tmp_path, ["a"]))
    metadata = tmp_path / "a.zarr" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["schema_version"] = 0
    metadata.write_text(json.dumps(content))
    with pytest.raises(SchemaError, match=r"a\.zarr: .*schema_version 0"):
        open_store(tmp_path / "a.zarr")


def test_the_fingerprint_tells_settings_apart():
    settings = {"k": 10, "dtype": "float32", "text": "a", "revision": None}
    assert fingerprint(**settings) == fingerprint(**dict(reversed(settings.items())))
    others = [{**settings, name: "other"} for name in settings]
    assert len({fingerprint(**each) for each in [settings, *others]}) == 5


@pytest.mark.slow
def test_memory_of_a_merge_does_not_grow_with_the_number_of_prompts(tmp_path, monkeypatch):
    """12 prompts have 10 times 360 kB more of A than 2; their coords take a few kB each."""
    monkeypatch.setattr(svd, "_SHARD_BYTES", 2**14)
    one = example(1, blocks=6, k=50, embed=50, tokens=2)
    assert one["A"].nbytes == 360_000
    expected = {f"p{index}": "x" for index in range(12)}
    for name in expected:
        part = one.assign_coords(prompt=np.array([name], dtype=object))
        SVD.write(tmp_path / "parts", name, part, "x")
    peak = {}
    for number in (2, 2, 12):  # the first time, imports are counted as well
        some = dict(itertools.islice(expected.items(), number))
        assert finished(tmp_path / "parts", some) == set(some)
        tracemalloc.start()
        SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", some)
        peak[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[12] - peak[2] < 2 * one["A"].nbytes


def test_a_store_goes_through_netcdf(tmp_path):
    expected = write(tmp_path / "parts", "ab")
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    ds = open_store(tmp_path / "svd.zarr").compute()
    ds.to_netcdf(tmp_path / "svd.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "svd.nc", engine="scipy") as read:
        xr.testing.assert_equal(read, ds)
        assert read.attrs == ds.attrs


def test_nulls_of_earlier_stores_are_read_as_empty_text(tmp_path):
    expected = {"a": "x"}
    SVD.write(tmp_path, "a", prompt("a").assign_attrs(revision=None, seed=None), "x")
    SVD.join(tmp_path, tmp_path / "svd.zarr", expected)
    attributes = open_store(tmp_path / "svd.zarr").attrs
    assert (attributes["revision"], attributes["seed"]) == ("", "")
    assert attributes["schema_version"] == SCHEMA_VERSION


def test_xarray_alone_opens_a_store(tmp_path):
    """As docs/schema.md has it, and without a warning."""
    expected = write(tmp_path / "parts", "ab", tokens=3)
    SVD.join(tmp_path / "parts", tmp_path / "svd.zarr", expected)
    ds = xr.open_zarr(tmp_path / "svd.zarr")
    own = open_store(tmp_path / "svd.zarr")
    xr.testing.assert_equal(ds.load(), own.load())
    ds = xr.open_zarr(tmp_path / "svd.zarr")
    for measure in (partial(bc.coupling, k=2), bc.line_shape_score, bc.expodistance):
        xr.testing.assert_equal(measure(ds).compute(), measure(own).compute())
