"""What is missing, cut short or changed is said in one sentence, with the path and what to do."""

import json
import random
import shutil
from pathlib import Path

import pytest

from blockcoupling.catalog import Catalog, join, open_catalog, write_entry
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store.checksums import digest as content_digest

OWN = "m/step64/held-out"
FILES = {
    "model/m/step64": "model.json",
    "prompts/held-out": "prompts.jsonl",
    f"coupling/{OWN}": "coupling.parquet",
    "figure/emergence/png": "emergence.png",
    "figure/emergence/pdf": "emergence.pdf",
    "report": "report.html",
}
STORES = {f"miscoupling/{OWN}": "miscoupling.zarr", f"svd/{OWN}": "svd.zarr"}


def said(catalog: Catalog, name: str) -> str:
    with pytest.raises((UserError, MeasurementError)) as error:
        catalog[name].read()
    text = str(error.value)
    assert "\n" not in text
    return text


def without_digests(catalog: Catalog) -> Catalog:
    """Return the same catalog as it was before entries had digests."""
    file = Path(catalog.user_parameters["CATALOG_PATH"])
    content = json.loads(file.read_text())
    for entry in content["entries"].values():
        entry["metadata"].pop("digest", None)
    older = file.with_name("older.yml")
    older.write_text(json.dumps(content))
    return open_catalog(older)


@pytest.mark.parametrize(("name", "file"), [*FILES.items(), *STORES.items()])
def test_what_is_gone_is_named(catalog, tree, name, file):
    path = tree / "results" / file
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    text = said(catalog, name)
    assert name in text
    assert f"{path} is gone; run the study again" in text
    if not name.startswith("figure"):  # no table, be it there or not
        with pytest.raises(UserError, match="is gone"):
            catalog.search(kind=name.partition("/")[0]).frame()


@pytest.mark.parametrize(("name", "file"), FILES.items())
@pytest.mark.parametrize("entered", [True, False])
def test_what_is_cut_short_is_named(catalog, tree, name, file, entered):
    if not entered:
        catalog = without_digests(catalog)
    path = tree / "results" / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    if not entered and path.suffix in (".html", ".png", ".pdf"):
        return  # a part of a text is a text: nothing to detect
    text = said(catalog, name)
    assert name in text
    assert str(path) in text
    assert "run the study again" in text


@pytest.mark.parametrize(("name", "file"), FILES.items())
def test_a_single_flipped_bit_is_found(catalog, tree, name, file):
    path = tree / "results" / file
    content = path.read_bytes()
    choice = random.Random(0)
    for _ in range(30):
        place, bit = choice.randrange(len(content)), 1 << choice.randrange(8)
        changed = bytearray(content)
        changed[place] ^= bit
        path.write_bytes(bytes(changed))
        assert f"{path} is not what was entered" in said(catalog, name)
    path.write_bytes(content)
    catalog[name].read()


def test_a_file_replaced_within_one_tick_of_the_clock_is_found(catalog, tree):
    """The time of its last change says nothing."""
    import os

    path = tree / "results" / "report.html"
    catalog["report"].read()
    times = path.stat()
    fresh = path.with_name("fresh.html")
    fresh.write_text(path.read_text().replace("née", "nee"), encoding="utf-8")
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh.replace(path)
    assert "is not what was entered" in said(catalog, "report")


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".jsonl"])
def test_damage_without_a_digest_ends_in_a_sentence_or_not_at_all(catalog, tree, suffix):
    """No traceback of a library, wherever a byte is wrong."""
    older = without_digests(catalog)
    (name, file) = next(each for each in FILES.items() if each[1].endswith(suffix))
    path = tree / "results" / file
    content = path.read_bytes()
    choice, found = random.Random(1), 0
    for _ in range(60):
        changed = bytearray(content)
        changed[choice.randrange(len(content))] = choice.randrange(256)
        path.write_bytes(bytes(changed))
        try:
            older[name].read()
        except UserError as error:
            assert str(path) in str(error)
            found += 1
    assert found


def test_a_store_without_its_metadata_is_named(catalog, tree):
    for name, file in STORES.items():
        (tree / "results" / file / "zarr.json").unlink()
        assert file in said(catalog, name)


@pytest.mark.parametrize("text", ["{", "[]", "null", '"text"'])
def test_a_store_with_damaged_metadata_is_named(catalog, tree, text):
    for name, file in STORES.items():
        (tree / "results" / file / "zarr.json").write_text(text)
        assert file in said(catalog, name)


def test_a_store_that_carries_a_digest_is_compared(catalog, tree):
    path = tree / "results" / "miscoupling.zarr"
    metadata = json.loads((path / "zarr.json").read_text())
    for digest in ("one", "two"):
        metadata["attributes"]["digest"] = digest
        (path / "zarr.json").write_text(json.dumps(metadata))
        assert content_digest(path) == digest
        if digest == "one":
            write_entry(tree / "e.yml", "miscoupling", path)
            own = join([tree / "e.yml"], tree / "own.yml")
            assert own["miscoupling"].metadata["digest"] == "one"
            own["miscoupling"].read()
    assert "is not what was entered" in said(own, "miscoupling")


def test_entries_change_with_their_artifacts(tree):
    """What a rule depends on must not look the same whatever the numbers are."""
    table, entry = tree / "results" / "coupling.parquet", tree / "e.yml"
    write_entry(entry, "coupling", table)
    first = entry.read_bytes()
    write_entry(entry, "coupling", table)
    assert entry.read_bytes() == first
    table.write_bytes(table.read_bytes() + b"\0")
    write_entry(entry, "coupling", table)
    assert entry.read_bytes() != first


def test_options_that_a_table_does_not_have_are_named(catalog):
    with pytest.raises(UserError, match=r"cannot be read with \{'columns': \['no such'\]\}"):
        catalog.search(kind="coupling").frame(columns=["no such"])


# ----------------------------------------------------------------------- the catalog's own file


def test_a_catalog_cut_short_is_said_to_be(catalog):
    file = Path(catalog.user_parameters["CATALOG_PATH"])
    text = file.read_text()
    for part in (0.01, 0.3, 0.6, 0.99):
        file.write_text(text[: int(part * len(text))])
        with pytest.raises(UserError) as error:
            open_catalog(file)
        assert str(file) in str(error.value)


def test_a_catalog_with_any_byte_flipped_is_opened_or_said_to_be_damaged(catalog):
    """Where it is opened all the same, reading an entry gives its content or a sentence."""
    file = Path(catalog.user_parameters["CATALOG_PATH"])
    content, choice = file.read_bytes(), random.Random(2)
    for _ in range(150):
        changed = bytearray(content)
        changed[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
        file.write_bytes(bytes(changed))
        try:
            opened = open_catalog(file)
            assert len(opened) == len(repr(opened)) or list(opened)
            names = [name for name in opened if name.startswith(("model", "report"))]
        except UserError as error:
            assert str(file) in str(error)
            continue
        for name in names:
            try:
                opened[name].read()
            except UserError as error:
                assert name in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"\x00" * 50,
        b"version: 2",
        b"version: 2\nentries: []\ndata: {}\nmetadata: {}",
        b"version: 2\nentries: {a: 1}\ndata: {}\nmetadata: {}",
        b"version: 2\nentries: {a: {metadata: {}}}\ndata: {}\nmetadata: {}",
        b"version: 2\nentries: {}\ndata: {}\nmetadata: null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"- " * 100_000,
    ],
)
def test_what_is_no_catalog_is_said_in_a_sentence(tmp_path, content):
    file = tmp_path / "c.yml"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        open_catalog(file)
    assert str(file) in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_folder_in_place_of_a_catalog(tmp_path):
    with pytest.raises(UserError, match=r"no catalog at .*catalog\.yml"):
        open_catalog(tmp_path)
    (tmp_path / "catalog.yml").mkdir()
    with pytest.raises(UserError, match="cannot read the catalog"):
        open_catalog(tmp_path)


@pytest.mark.parametrize("text", ["{", "name: 1", "name: a\npath: b\nmetadata: {}", "[]", "\x00"])
def test_a_damaged_entry_file_is_named(tmp_path, text):
    (tmp_path / "e.yml").write_text(text)
    with pytest.raises(UserError, match=r"e\.yml"):
        join([tmp_path / "e.yml"], tmp_path / "c.yml")


def test_an_entry_file_of_what_the_catalog_cannot_read_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("a")
    (tmp_path / "e.yml").write_text("name: a\npath: t.csv\nmetadata: {kind: score}")
    with pytest.raises(UserError, match=r"no reader for .*t\.csv"):
        join([tmp_path / "e.yml"], tmp_path / "c.yml")
