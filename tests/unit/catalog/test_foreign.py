"""A catalog made by someone else: nothing of theirs is run, and nothing outside is read."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml
import zarr

import blockcoupling as bc
from blockcoupling.catalog import Catalog, join, open_catalog, write_entry
from blockcoupling.errors import UserError
from blockcoupling.store.checksums import seal
from blockcoupling.study.provenance import provenance

TABLE_ENTRY, RECORD_ENTRY = "coupling/m/step64/held-out", "model/m/step64"


def content_of(catalog: Catalog) -> dict:
    return json.loads(Path(catalog.user_parameters["CATALOG_PATH"]).read_text())


def opened(content: dict, tree: Path, **options) -> Catalog:
    """Return what somebody else's file, put into the study's place, is opened as."""
    file = tree / "catalog" / "theirs.yml"
    file.write_text(yaml.safe_dump(content))
    return open_catalog(file, **options)


def refused(catalog: Catalog, name: str) -> str:
    with pytest.raises(UserError) as error:
        catalog[name].read()
    return str(error.value)


class Command:
    """What a pickle runs when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def in_place_of_a_function(content, command):
    calls = content["entries"][RECORD_ENTRY]["kwargs"]["steps"]
    calls[1][2] = {"func": "{func(os:system)}"}
    return RECORD_ENTRY, None


def one_more_step(content, command):
    steps = content["entries"][RECORD_ENTRY]["kwargs"]["steps"]
    steps.append(["{func(intake.readers.convert:GenericFunc)}", [], {"func": "{func(os:system)}"}])
    return RECORD_ENTRY, None


def a_function_among_the_options(content, command):
    content["entries"][TABLE_ENTRY]["kwargs"]["filters"] = ["{import(os:system)}", command]
    return TABLE_ENTRY, None


def a_nested_pipeline(content, command):
    inner = copy.deepcopy(content["entries"][RECORD_ENTRY])
    inner["kwargs"]["steps"][1][2] = {"func": "{func(subprocess:getoutput)}"}
    content["entries"]["inner"] = inner
    content["entries"][TABLE_ENTRY]["kwargs"] = {"data": "{data(inner)}"}
    return TABLE_ENTRY, None


def a_reader_that_unpickles(content, command):
    content["entries"][TABLE_ENTRY]["reader"] = "intake.readers.readers:Pickle"
    return TABLE_ENTRY, None


def a_reader_of_their_own(content, command):
    content["entries"][TABLE_ENTRY]["reader"] = "theirs:Reader"
    return TABLE_ENTRY, None


def a_function_as_the_reader(content, command):
    content["entries"][TABLE_ENTRY] |= {"reader": "os:system", "kwargs": {"command": command}}
    return TABLE_ENTRY, None


def a_type_of_file_of_their_own(content, command):
    key = f"file of {TABLE_ENTRY}"
    content["data"][key] |= {"datatype": "os:system", "kwargs": {"command": command}}
    return TABLE_ENTRY, "it names no file"


def pickled_options(content, command):
    content["entries"][TABLE_ENTRY]["kwargs"]["filters"] = "{pickle64(gASVHAAAAA==)}"
    return TABLE_ENTRY, None


def options_of_the_storage(content, command):
    key = f"file of {TABLE_ENTRY}"
    content["data"][key]["kwargs"]["storage_options"] = {"asynchronous": "{func(os:system)}"}
    return TABLE_ENTRY, None


def a_parameter_of_the_entry(content, command):
    content["entries"][TABLE_ENTRY]["user_parameters"] = {
        "columns": {"cls": "subprocess:Popen", "default": "func(os:system)", "description": ""}
    }
    return TABLE_ENTRY, None


def a_class_of_the_description(content, command):
    content["entries"][TABLE_ENTRY]["cls"] = "theirs:Reader"
    return TABLE_ENTRY, None


def a_variable_of_the_environment(content, command):
    content["data"][f"file of {TABLE_ENTRY}"]["kwargs"]["url"] = (
        "{CATALOG_DIR}/{env(HOME)}/t.parquet"
    )
    return TABLE_ENTRY, "env(HOME)"


def a_shell_template(content, command):
    content["data"][f"file of {TABLE_ENTRY}"]["kwargs"]["url"] = f"{{shell({command})}}.parquet"
    return TABLE_ENTRY, "shell(touch"


WAYS_IN = [
    in_place_of_a_function,
    one_more_step,
    a_function_among_the_options,
    a_nested_pipeline,
    a_reader_that_unpickles,
    a_reader_of_their_own,
    a_function_as_the_reader,
    a_type_of_file_of_their_own,
    pickled_options,
    options_of_the_storage,
    a_parameter_of_the_entry,
    a_class_of_the_description,
    a_variable_of_the_environment,
    a_shell_template,
]


@pytest.mark.parametrize("change", WAYS_IN)
@pytest.mark.parametrize("allow_outside", [False, True])
def test_nothing_that_a_catalog_names_is_run(
    catalog, tree, tmp_path, monkeypatch, change, allow_outside
):
    mark = tmp_path / "mark"
    (tmp_path / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\nclass Reader: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    # What a command would be made of, if the text of an artifact were handed to one.
    (tree / "results" / "model.json").write_text(json.dumps(f"touch '{mark}'"))
    content = content_of(catalog)
    for entry in content["entries"].values():
        entry["metadata"].pop("digest")
    ours = opened(content, tree, allow_outside=allow_outside)
    name, said = change(content, f"touch '{mark}'")
    theirs = opened(content, tree, allow_outside=allow_outside)
    if said is None:  # it is read by its path, like ours
        read, wanted = theirs[name].read(), ours[name].read()
        assert read == wanted if isinstance(read, str) else read.equals(wanted)
    else:
        assert said in refused(theirs, name)
        with pytest.raises(UserError):
            theirs.search(kind=name.partition("/")[0]).frame()
    # No other way that Intake has leads to it.
    assert theirs.entries[name].kwargs == (ours.entries[name].kwargs if said is None else {})
    described = [*theirs.entries.values(), *theirs.data.values()]
    held = json.dumps([each.to_dict() for each in described], default=str)
    for named in ("os:system", "theirs:", "subprocess", "ickle", "env(", "shell("):
        assert named not in held
    assert not mark.exists()
    # The others are read as before, and this one can still be found.
    assert name in list(theirs.search(model="m"))
    assert theirs["report"].read() == "<title>née</title>"


def test_a_catalog_depends_on_names_metadata_and_paths_alone(catalog, tree):
    """So whatever else is in the file cannot do anything."""
    content = content_of(catalog)
    for entry in content["entries"].values():
        for key in entry.keys() - {"metadata"}:
            entry[key] = "{func(os:system)}"
    for file in content["data"].values():
        for key in file.keys() - {"kwargs"}:
            file[key] = "{func(os:system)}"
        file["kwargs"] = {"url": file["kwargs"]["url"], "storage_options": "{func(os:system)}"}
    content["aliases"] = content["user_parameters"] = content["more"] = "{func(os:system)}"
    theirs, ours = opened(content, tree), opened(content_of(catalog), tree)
    for held in ("entries", "data"):
        own = {name: each.to_dict() for name, each in getattr(ours, held).items()}
        assert {name: each.to_dict() for name, each in getattr(theirs, held).items()} == own
    assert theirs.aliases == ours.aliases
    assert theirs.user_parameters == ours.user_parameters


def test_parameters_of_the_catalog_and_aliases_are_not_used(catalog, tree, tmp_path):
    content = content_of(catalog)
    content["user_parameters"] = {"CATALOG_DIR": {"cls": "theirs:Class", "default": str(tmp_path)}}
    content["aliases"] = {"report": RECORD_ENTRY, "other": "report"}
    theirs = opened(content, tree)
    assert theirs["report"].read() == "<title>née</title>"
    assert "other" not in list(theirs)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "!!python/name:os.system ''",
        "!!python/object/new:pathlib.Path ['{mark}']",
        "!theirs {{a: 1}}",
    ],
)
def test_tags_of_yaml_are_refused(tree, catalog, tmp_path, tag):
    mark = tmp_path / "mark"
    text = tag.format(mark=mark)
    file = tree / "catalog" / "tagged.yml"
    file.write_text(f"version: 2\nmetadata: {text}\nentries: {{}}\ndata: {{}}\n")
    with pytest.raises(UserError, match="is not YAML"):
        open_catalog(file)
    entry = tree / "entries" / "tagged.yml"
    entry.write_text(f"name: x\npath: {text}\nmetadata: {{}}\n")
    with pytest.raises(UserError, match="is not YAML"):
        join([entry], tree / "catalog" / "c.yml")
    assert not mark.exists()


@pytest.mark.parametrize("bomb", ["a: &a [*a]", "a: &a {b: *a}"])
def test_what_holds_itself_comes_to_an_end(catalog, tree, bomb):
    content = content_of(catalog)
    content["entries"][TABLE_ENTRY]["kwargs"] = yaml.safe_load(bomb)
    assert len(opened(content, tree)[TABLE_ENTRY].read()) == 1


# ------------------------------------------------------------------------- where artifacts may lie


def moved_to(content: dict, url: str) -> None:
    content["data"][f"file of {TABLE_ENTRY}"]["kwargs"]["url"] = url


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/t.parquet",
        "https://example.org/t.parquet",
        "s3://bucket/t.parquet",
        "file:///etc/t.parquet",
        "{CATALOG_DIR}/http://localhost:1/t.parquet",
        "simplecache::http://localhost:1/t.parquet",
        "{CATALOG_DIR}/a.zip::http://localhost:1/t.parquet",
        "reference::{CATALOG_DIR}/t.parquet",
    ],
)
@pytest.mark.parametrize("allow_outside", [False, True])
def test_nothing_is_fetched(catalog, tree, url, allow_outside):
    content = content_of(catalog)
    moved_to(content, url)
    theirs = opened(content, tree, allow_outside=allow_outside)
    assert "nothing is fetched" in refused(theirs, TABLE_ENTRY)
    with pytest.raises(UserError, match="nothing is fetched"):
        theirs.path(TABLE_ENTRY)


def test_paths_out_of_the_study_are_refused_unless_allowed(catalog, tree, tmp_path):
    shutil.copy(tree / "results" / "coupling.parquet", tmp_path / "outside.parquet")
    for url in ("{CATALOG_DIR}/../../outside.parquet", str(tmp_path / "outside.parquet")):
        content = content_of(catalog)
        moved_to(content, url)
        said = refused(opened(content, tree), TABLE_ENTRY)
        assert "open it with allow_outside=True" in said
        # What was entered has the same content, so that its digest is right.
        assert len(opened(content, tree, allow_outside=True)[TABLE_ENTRY].read()) == 1


def test_links_out_of_the_study_are_refused_unless_allowed(catalog, tree, tmp_path):
    table = tree / "results" / "coupling.parquet"
    shutil.move(table, tmp_path / "outside.parquet")
    table.symlink_to(tmp_path / "outside.parquet")
    store = tree / "results" / "svd.zarr"
    shutil.move(store / "S", tmp_path / "S")
    (store / "S").symlink_to(tmp_path / "S")
    file = catalog.user_parameters["CATALOG_PATH"]
    theirs = open_catalog(file)
    assert "is outside" in refused(theirs, TABLE_ENTRY)
    assert f"{store / 'S'} is a link" in refused(theirs, "svd/m/step64/held-out")
    trusted = open_catalog(file, allow_outside=True)
    assert len(trusted[TABLE_ENTRY].read()) == 1
    assert trusted["svd/m/step64/held-out"].read()["S"].compute().notnull().any()


def test_a_catalog_by_itself_has_its_own_directory_only(tree, tmp_path):
    """Nothing outside the folder of a catalog, such as one of downloads, is read."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    shutil.copy(tree / "results" / "coupling.parquet", tmp_path / "private.parquet")
    write_entry(tmp_path / "e.yml", "score", tmp_path / "private.parquet")
    join([tmp_path / "e.yml"], downloads / "c.yml")
    assert "is outside" in refused(open_catalog(downloads / "c.yml"), "score")


def test_what_one_joined_oneself_is_read_wherever_it_lies(tree, tmp_path, caplog):
    shutil.copy(tree / "results" / "coupling.parquet", tmp_path / "t.parquet")
    write_entry(tmp_path / "e.yml", "score", tmp_path / "t.parquet")
    with caplog.at_level("INFO"):
        own = join([tmp_path / "e.yml"], tmp_path / "deep" / "down" / "c.yml")
    assert len(own["score"].read()) == 1
    assert "1 of 1 artifacts are outside" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_not_opened(catalog, tree, kind):
    import os

    table = tree / "results" / "coupling.parquet"
    table.unlink()
    if kind == "folder":  # pandas would read every file in it
        table.mkdir()
    else:  # reading would never end
        os.mkfifo(table)
    assert "is not a file" in refused(catalog, TABLE_ENTRY)


def test_a_store_of_the_older_format_is_not_opened(catalog, tree):
    """Zarr 2 has a filter that unpickles; this package writes Zarr 3."""
    import numpy as np
    import zarr

    store = tree / "results" / "miscoupling.zarr"
    shutil.rmtree(store)
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.create_array("mean", shape=(2,), dtype=float)[:] = np.zeros(2)
    assert "miscoupling.zarr" in refused(catalog, "miscoupling/m/step64/held-out")


class Unpickler(zarr.abc.codec.ArrayBytesCodec):
    """A codec of another package, which executes the content of a chunk."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, _):
        return cls()

    def to_dict(self):
        return {"name": "theirs.pickle", "configuration": {}}

    def compute_encoded_size(self, size, _):
        return size

    async def _decode_single(self, chunk, _):
        return pickle.loads(chunk.to_bytes())


@pytest.mark.parametrize("allow_outside", [False, True])
@pytest.mark.parametrize("within", ["chunks", "shards", "the index of shards"])
def test_a_codec_of_another_package_is_refused_by_name(
    catalog, tree, tmp_path, within, allow_outside
):
    mark = tmp_path / "mark"
    zarr.registry.register_codec("theirs.pickle", Unpickler)
    array = tree / "results" / "svd.zarr" / "S"
    about = json.loads((array / "zarr.json").read_text())
    (sharding,) = about["codecs"]
    theirs = [{"name": "theirs.pickle", "configuration": {}}]
    if within == "chunks":
        about["codecs"] = theirs
        about["chunk_grid"]["configuration"]["chunk_shape"] = about["shape"]
    else:
        key = "codecs" if within == "shards" else "index_codecs"
        sharding["configuration"][key] = theirs
    (array / "zarr.json").write_text(json.dumps(about))
    for chunk in (path for path in array.glob("c*") if path.is_file()):
        chunk.write_bytes(pickle.dumps(Command(mark)))
    store = tree / "results" / "svd.zarr"
    seal(store)
    content = content_of(catalog)
    for entry in content["entries"].values():
        entry["metadata"].pop("digest", None)
    if within == "chunks":  # the door is there: without the guard it would run
        with pytest.raises(Exception):  # noqa: B017 (what comes after it does not matter)
            xr.open_zarr(store, consolidated=False)["S"].compute()
        assert mark.exists()
        mark.unlink()
    said = refused(opened(content, tree, allow_outside=allow_outside), "svd/m/step64/held-out")
    assert "array S" in said
    assert "asks for the codec theirs.pickle" in said
    assert not mark.exists()


def test_a_pickled_type_in_parquet_is_not_loaded(catalog, tree, tmp_path):
    """Arrow had types that were pickled Python, and pandas keeps its own metadata in a file."""
    mark = tmp_path / "mark"
    types = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Command(mark)),
    }
    field = pa.field("coupling", pa.int64(), metadata=types)
    about = {b"pandas": b'{"columns": [], "index_columns": [], "attributes": {}}'}
    table = pa.table([[1]], schema=pa.schema([field], metadata=about))
    pq.write_table(table, tree / "results" / "coupling.parquet")
    content = content_of(catalog)
    content["entries"][TABLE_ENTRY]["metadata"].pop("digest")
    assert opened(content, tree)[TABLE_ENTRY].read()["coupling"].tolist() == [1]
    assert not mark.exists()


def test_metadata_that_hold_themselves_are_told_as_damaged(catalog, tree):
    content = content_of(catalog)
    content["entries"][TABLE_ENTRY]["metadata"]["made"] = yaml.safe_load("&a {model: *a}")
    with pytest.raises(UserError, match="the provenance in its entry is damaged"):
        provenance(opened(content, tree), TABLE_ENTRY)


def test_a_pickle_by_another_name_is_not_loaded(catalog, tree, tmp_path):
    for file in ("coupling.parquet", "model.json", "prompts.jsonl"):
        (tree / "results" / file).write_bytes(pickle.dumps(Command(tmp_path / "mark")))
    content = content_of(catalog)
    for entry in content["entries"].values():
        entry["metadata"].pop("digest", None)
    theirs = opened(content, tree)
    for name in (TABLE_ENTRY, RECORD_ENTRY, "prompts/held-out"):
        assert "cannot be read" in refused(theirs, name)
    assert not (tmp_path / "mark").exists()


def test_a_catalog_elsewhere_is_read_by_the_same_rules(catalog, tree):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe(
        {
            "/study/results/coupling.parquet": (tree / "results" / "coupling.parquet").read_bytes(),
            "/study/results/model.json": (tree / "results" / "model.json").read_bytes(),
            "/private.parquet": (tree / "results" / "coupling.parquet").read_bytes(),
        }
    )
    content = content_of(catalog)
    memory.pipe("/study/catalog/c.yml", json.dumps(content).encode())
    theirs = open_catalog("memory://study/catalog/c.yml")
    assert len(theirs[TABLE_ENTRY].read()) == 1
    assert theirs[RECORD_ENTRY].read() == {"name": "m", "parameters": 12}
    with pytest.raises(UserError, match="is not on the local disk"):
        theirs.path(TABLE_ENTRY)
    moved_to(content, "{CATALOG_DIR}/../../private.parquet")
    memory.pipe("/study/catalog/c.yml", json.dumps(content).encode())
    theirs = open_catalog("memory://study/catalog/c.yml")
    assert "is outside memory://study;" in refused(theirs, TABLE_ENTRY)
    with pytest.raises(UserError, match="no catalog at memory://study/none"):
        open_catalog("memory://study/none.yml")


def test_the_name_is_public():
    assert bc.open_catalog is open_catalog
