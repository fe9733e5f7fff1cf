"""A flipped byte anywhere, or a file that is gone, is found and named, or changes no number."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from example_store import example
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store.checksums import check, digest, reading, verify, write_store
from blockcoupling.store.svd import SVD, open_store

EXPECTED = {"a": "x", "b": "x", "c": "x"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prompts of different lengths, so that the joined store has padding."""
    root = tmp_path_factory.mktemp("parts")
    for seed, name in enumerate(EXPECTED):
        ds = example(1, seed=seed, tokens=2 + seed, all_tokens=True, blocks=2, k=2)
        SVD.write(root, name, ds.assign_coords(prompt=np.array([name], dtype=object)), "x")
    SVD.join(root, root / "svd.zarr", EXPECTED)
    return root / "svd.zarr"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for copies that tests damage."""
    return tmp_path_factory.mktemp("spoilt")


def files_of(store: Path) -> list[str]:
    return sorted(str(f.relative_to(store)) for f in store.rglob("*") if f.is_file())


def read(store: Path) -> xr.Dataset:
    ds = open_store(store)
    with reading(store):
        return ds.load()


def fresh(store: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(store, place)


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_byte_is_found_or_without_effect(
    store: Path, spoilt: Path, data: st.DataObject
) -> None:
    whole = read(store)
    file = data.draw(st.sampled_from(files_of(store)))
    content = bytearray((store / file).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    copy = fresh(store, spoilt / "store.zarr")
    (copy / file).write_bytes(content)
    try:
        found = read(copy)
    except (MeasurementError, UserError) as error:
        assert str(copy) in str(error)
    else:
        xr.testing.assert_identical(found, whole)


def test_a_file_that_is_gone_is_named(store: Path, spoilt: Path) -> None:
    for file in files_of(store):
        copy = fresh(store, spoilt / "store.zarr")
        (copy / file).unlink()
        if file == "zarr.json":
            with pytest.raises(UserError, match="no store at"):
                read(copy)
        else:
            with pytest.raises(MeasurementError, match=f"{file} is missing") as error:
                read(copy)
            assert "make it again" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 7, -1])
def test_a_truncated_file_is_named(store: Path, spoilt: Path, left: int) -> None:
    for file in files_of(store):
        copy = fresh(store, spoilt / "store.zarr")
        (copy / file).write_bytes((copy / file).read_bytes()[:left])
        with pytest.raises((MeasurementError, UserError), match=r"store\.zarr") as error:
            read(copy)
        assert file in str(error.value)


def test_a_shard_that_is_empty_is_not_taken_for_padding(tmp_path: Path) -> None:
    """Zarr takes it for one, where a shard is read whole: there, every number would be NaN."""
    ds = example(1, blocks=2, k=2)
    SVD.write(tmp_path, "p0", ds, "x")
    SVD.join(tmp_path, tmp_path / "svd.zarr", {"p0": "x"})
    (chunk,) = (tmp_path / "svd.zarr" / "A").glob("c.*")
    chunk.write_bytes(b"")
    assert np.isnan(zarr.open_array(tmp_path / "svd.zarr" / "A", mode="r")[:]).all()
    with pytest.raises(MeasurementError, match=r"A/c\.0\.0\.0\.0\.0\.0 is missing or empty"):
        read(tmp_path / "svd.zarr")


def test_padding_is_no_damage(store: Path) -> None:
    ds = read(store)
    assert np.isnan(ds["S"].values[0, -1]).all()
    verify(store)


def test_chunks_that_change_places_are_seen_when_all_is_verified(store: Path, spoilt: Path) -> None:
    """Each is whole by itself."""
    copy = fresh(store, spoilt / "store.zarr")
    first, second = sorted((copy / "A").glob("c.*"))[:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    check(copy)
    with pytest.raises(MeasurementError, match="its chunks are not those that were written"):
        verify(copy)


def test_a_digest_changes_with_any_number(tmp_path: Path) -> None:
    ds = xr.Dataset({"y": ("x", np.zeros(3))}, {"x": [1, 2, 3]}, {"a": "b"})
    write_store(ds, tmp_path / "one.zarr")
    write_store(ds, tmp_path / "same.zarr")
    assert digest(tmp_path / "one.zarr") == digest(tmp_path / "same.zarr" / "zarr.json")
    others = [
        ds + 1,
        ds.assign_attrs(a="c"),
        ds.assign(y=("x", [0, 0, np.nan])),
        ds.assign_coords(x=[1, 2, 4]),
        ds.rename(y="z"),
    ]
    for number, other in enumerate(others):
        write_store(other, tmp_path / f"{number}.zarr")
    names = ["one.zarr", *(f"{number}.zarr" for number in range(len(others)))]
    assert len({digest(tmp_path / name) for name in names}) == 1 + len(others)
    assert len({(tmp_path / name / "zarr.json").read_bytes() for name in names}) == 1 + len(others)


def test_a_digest_is_of_the_store_it_stands_in(tmp_path: Path) -> None:
    """Attributes that are handed on from another store do not bring its seal along."""
    first = xr.Dataset({"y": ("x", np.zeros(3))})
    write_store(first, tmp_path / "first.zarr")
    attributes = xr.open_zarr(tmp_path / "first.zarr", consolidated=False).attrs
    write_store((first + 1).assign_attrs(attributes), tmp_path / "second.zarr")
    verify(tmp_path / "second.zarr")
    assert digest(tmp_path / "second.zarr") != digest(tmp_path / "first.zarr")


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert digest(tmp_path / "f").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(UserError, match=r"cannot read .*gone"):
        digest(tmp_path / "gone")


def test_a_store_of_an_earlier_version_is_read_as_it_is(store: Path, spoilt: Path) -> None:
    copy = fresh(store, spoilt / "store.zarr")
    root = json.loads((copy / "zarr.json").read_text())
    for name in ("digest", "metadata_digests"):
        del root["attributes"][name]
    (copy / "zarr.json").write_text(json.dumps(root))
    xr.testing.assert_identical(read(copy), read(store))
    assert digest(copy) == digest(store)  # taken from the files


def test_errors_that_are_not_damage_stay_what_they_are(store: Path) -> None:
    with pytest.raises(ZeroDivisionError), reading(store):
        raise ZeroDivisionError
