"""Finished prompts are not lost: they are parts, or in the store that they were joined to."""

import itertools
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_store import example

from blockcoupling.errors import MeasurementError
from blockcoupling.store.checksums import digest
from blockcoupling.store.comparisons import COMPARISONS, PLACES
from blockcoupling.store.damage import DAMAGE
from blockcoupling.store.part import open_part, write_part
from blockcoupling.store.part_names import part_files, part_path
from blockcoupling.store.parts import finished
from blockcoupling.store.schema import Schema, stamp
from blockcoupling.store.svd import SVD, open_store

pytestmark = pytest.mark.filterwarnings("error")

EXPECTED = {"a": "x", "b": "y", "c": "z"}


def prompt(name: str, seed: int, **options) -> xr.Dataset:
    """One prompt; the lengths differ."""
    ds = example(1, seed=seed, tokens=2 + seed, all_tokens=True, blocks=2, k=2, **options)
    return ds.assign_coords(prompt=np.array([name], dtype=object))


def comparisons(name: str, seed: int) -> xr.Dataset:
    rows = 2 + seed
    random = np.random.default_rng(seed)
    a = random.normal(size=(rows, 2, 2)).astype(np.float32)
    text = np.array([name] * rows, dtype=object)
    return xr.Dataset(
        {
            "A": (("comparison", "k", "k_other"), a),
            "S": (("comparison", "k"), a[:, 0]),
            "svd_residual": ("comparison", a[:, 0, 0]),
        },
        {
            "prompt": ("comparison", text),
            "kind": ("comparison", text),
            **{place: ("comparison", np.arange(rows)) for place in PLACES},
            "k": [1, 2],
            "k_other": [1, 2],
        },
        stamp(),
    )


def damage(name: str, seed: int) -> xr.Dataset:
    text = np.array(["skip", "skip"], dtype=object)
    return xr.Dataset(
        {
            "kl": (("prompt", "change"), [[0.5 * seed, np.nan]]),
            "loss_change": (("prompt", "change"), [[0.25 * seed, np.nan]]),
            "loss": ("prompt", [1.0 + seed]),
        },
        {
            "prompt": np.array([name], dtype=object),
            "kind": ("prompt", np.array(["prompt"], dtype=object)),
            "tokens": ("prompt", [seed]),
            "treatment": ("change", text),
            "block": ("change", [1, 2]),
            "block_other": ("change", [1, 2]),
            "reason": ("change", np.array(["", "not possible"], dtype=object)),
        },
        stamp(),
    )


KINDS = {
    "svd": (SVD, prompt),
    "comparisons": (COMPARISONS, comparisons),
    "damage": (DAMAGE, damage),
}


def write(place: Path, schema: Schema = SVD, make=prompt, names=EXPECTED) -> None:
    for seed, name in enumerate(EXPECTED):
        if name in names:
            schema.write(place / "parts", name, make(name, seed), EXPECTED[name])


def join(place: Path, schema: Schema = SVD, expected=EXPECTED) -> Path:
    schema.join(place / "parts", place / "all.zarr", expected, attributes={"model": "m"})
    return place / "all.zarr"


def test_a_part_keeps_everything(tmp_path: Path) -> None:
    ds = prompt("a b/c é", 1, vectors=True).assign_attrs(seed=None, tolerance=np.float64(0.5))
    ds["prompt_loss" if "prompt_loss" in SVD.variables else "own_loss"] = ("prompt", [np.nan])
    ds["U"] = ds["U"].astype("float16")
    ds["gram"][0, 0, 0, 0] = -0.0
    SVD.write(tmp_path, "a b/c é", ds, "x")
    part = open_part(part_path(tmp_path, "a b/c é"))
    read = part.dataset()
    xr.testing.assert_identical(read, ds)
    assert np.signbit(read["gram"].values[0, 0, 0, 0])
    assert part.fingerprint == "x"
    assert {n: v.dtype for n, v in read.variables.items() if v.dtype.kind != "O"} == {
        n: v.dtype for n, v in ds.variables.items() if v.dtype.kind != "O"
    }
    np.testing.assert_array_equal(part.read("U"), ds["U"])


def test_every_flipped_bit_of_a_part_is_found(tmp_path: Path, caplog) -> None:
    write(tmp_path)
    file = part_path(tmp_path / "parts", "b")
    content, choice = file.read_bytes(), random.Random(0)
    for place in [*range(0, 200), *(choice.randrange(len(content)) for _ in range(200))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << choice.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(MeasurementError, match=r"b\.part is damaged"):
            open_part(file)
    assert finished(tmp_path / "parts", EXPECTED) == {"a", "c"}
    assert "prompt b: its part is damaged; measuring it again" in caplog.text
    with pytest.raises(MeasurementError, match=r"b\.part is damaged"):
        join(tmp_path)
    for length in (0, 1, 65, len(content) - 1):
        file.write_bytes(content[:length])
        assert finished(tmp_path / "parts", EXPECTED) == {"a", "c"}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_removed_and_come_back_from_the_store(tmp_path: Path, kind: str) -> None:
    schema, make = KINDS[kind]
    write(tmp_path, schema, make)
    before = {name: open_part(part_path(tmp_path / "parts", name)).dataset() for name in EXPECTED}
    store = join(tmp_path, schema)
    first, opened = digest(store), schema.open(store).load()
    assert part_files(tmp_path / "parts") == []
    assert finished(tmp_path / "parts", EXPECTED) == set(EXPECTED)
    for name, ds in before.items():
        again = open_part(part_path(tmp_path / "parts", name)).dataset()
        xr.testing.assert_equal(again, ds)
        assert again.attrs == ds.attrs | {"model": "m"}
    assert digest(join(tmp_path, schema)) == first
    shutil.rmtree(store)
    write(tmp_path, schema, make)
    assert digest(join(tmp_path, schema)) == first  # the same bytes as in one go
    xr.testing.assert_identical(schema.open(store).load(), opened)


@pytest.mark.parametrize("kind", KINDS)
def test_more_prompts_are_joined_with_those_in_the_store(tmp_path: Path, kind: str) -> None:
    schema, make = KINDS[kind]
    write(tmp_path, schema, make, names="ac")
    join(tmp_path, schema, {"a": "x", "c": "z"})
    assert finished(tmp_path / "parts", EXPECTED) == {"a", "c"}
    write(tmp_path, schema, make, names="b")
    assert finished(tmp_path / "parts", EXPECTED) == set(EXPECTED)
    one_go = tmp_path / "one go"
    write(one_go, schema, make)
    assert digest(join(tmp_path, schema)) == digest(join(one_go, schema))
    assert part_files(tmp_path / "parts") == []


class Killed(BaseException):
    """What a signal does: nothing catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("more", [False, True])
def test_a_join_killed_at_any_instant_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: bool
) -> None:
    """Before each step that changes the disk for good: renaming, and removing each part."""
    old = {"a": "x"} if more else {}
    one_go = tmp_path / "one go"
    write(one_go)
    wanted = digest(join(one_go))
    steps = ("rename", "replace", "unlink")
    for instant in itertools.count():
        place = tmp_path / str(instant)
        if old:
            write(place, names="a")
            join(place, expected=old)
            assert finished(place / "parts", EXPECTED) == {"a"}
        write(place, names=[name for name in EXPECTED if name not in old])
        left = instant
        with monkeypatch.context() as killing:

            def dying(real):
                def step(path, *args, **kwargs):
                    nonlocal left
                    # Zarr writes in threads of its own, into a store that has no name yet.
                    if threading.current_thread() is threading.main_thread():
                        if left == 0:
                            raise Killed
                        left -= 1
                    return real(path, *args, **kwargs)

                return step

            for name in steps:
                killing.setattr(Path, name, dying(getattr(Path, name)))
            try:
                join(place)
            except Killed:
                pass
            else:
                break
        assert finished(place / "parts", EXPECTED) == set(EXPECTED), instant
        assert digest(join(place)) == wanted
        assert part_files(place / "parts") == []
    assert instant >= 5


def test_snakemake_may_delete_the_metadata_of_the_store(tmp_path: Path) -> None:
    """It deletes the outputs of a job before it starts it again."""
    write(tmp_path)
    store = join(tmp_path)
    first = digest(store)
    (store / "zarr.json").unlink()
    assert finished(tmp_path / "parts", EXPECTED) == set(EXPECTED)
    assert not (store / "zarr.json").exists()  # an unfinished job does not look finished
    assert digest(join(tmp_path)) == first


def test_a_study_may_be_moved(tmp_path: Path) -> None:
    write(tmp_path / "here")
    join(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert finished(tmp_path / "there" / "parts", EXPECTED) == set(EXPECTED)


def test_a_store_that_has_changed_is_not_used(tmp_path: Path, caplog) -> None:
    write(tmp_path)
    store = join(tmp_path)
    for file in sorted(path for path in store.rglob("*") if path.is_file()):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = finished(tmp_path / "parts", EXPECTED)
        assert found == (set(EXPECTED) if file == store / "zarr.json" else set()), file
        file.write_bytes(content)
        for part in part_files(tmp_path / "parts"):
            part.unlink()
    assert "has changed since it was joined: measuring again" in caplog.text
    note = tmp_path / "parts" / "joined.json"
    for text in ("", "{", "null", note.read_text().replace('"start": 1', '"start": 2')):
        note.write_text(text)
        assert finished(tmp_path / "parts", EXPECTED) == set()


def test_other_settings_and_lacking_variables_in_a_store_are_logged(tmp_path: Path, caplog) -> None:
    write(tmp_path)
    join(tmp_path)
    assert finished(tmp_path / "parts", EXPECTED | {"b": "other"}) == {"a", "c"}
    assert (
        f"prompt b in {tmp_path / 'all.zarr'} is from other settings, weights or text"
        in caplog.text
    )
    for part in part_files(tmp_path / "parts"):
        part.unlink()
    assert finished(tmp_path / "parts", EXPECTED, ["U"]) == set()
    assert "has no U; measuring again" in caplog.text


def test_variables_that_are_not_asked_for_are_not_joined(tmp_path: Path) -> None:
    for seed, name in enumerate(EXPECTED):
        ds = prompt(name, seed, vectors=True, swapped=True)
        SVD.write(tmp_path / "parts", name, ds, EXPECTED[name])
    SVD.join(tmp_path / "parts", tmp_path / "all.zarr", EXPECTED, optional=["A_swapped"])
    ds = open_store(tmp_path / "all.zarr")
    assert ("A_swapped" in ds, "U" in ds, "V" in ds) == (True, False, False)
    # What the store does not hold is kept, so that it need not be measured again.
    assert len(part_files(tmp_path / "parts")) == 3
    assert finished(tmp_path / "parts", EXPECTED, ["U", "V"]) == set(EXPECTED)
    SVD.join(tmp_path / "parts", tmp_path / "all.zarr", EXPECTED)
    assert "U" in open_store(tmp_path / "all.zarr")
    assert part_files(tmp_path / "parts") == []


def test_writing_a_part_takes_few_files(tmp_path: Path) -> None:
    write_part(tmp_path, "a", prompt("a", 0), "x")
    assert [file.name for file in tmp_path.iterdir()] == ["a.part"]
