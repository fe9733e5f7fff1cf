"""Every artifact of a study compared with its entry: which file is wrong, and what to do."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_store import example
from typer.testing import CliRunner

from blockcoupling import cli
from blockcoupling.catalog import join, open_catalog, write_entry
from blockcoupling.catalog.making import making
from blockcoupling.errors import UserError
from blockcoupling.lab.training import train
from blockcoupling.sources.models import load_model, model_record
from blockcoupling.sources.records import write_record
from blockcoupling.store.checksums import write_store
from blockcoupling.store.svd import SVD
from blockcoupling.study.verify import as_text, verify_study

OWN = {"model": "m", "checkpoint": "main", "dataset": "d"}
STORE, TABLE = "svd/m/main/d", "coupling/m/main/d"
ARTIFACTS = {
    "model/m/main": "model.json",
    "prompts/d": "prompts.jsonl",
    STORE: "svd.zarr",
    "miscoupling/m/main/d": "miscoupling.zarr",
    TABLE: "coupling.parquet",
    "figure/emergence/png": "emergence.png",
    "report": "report.html",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original")
    results = root / "results"
    results.mkdir()
    (results / "model.json").write_text(json.dumps({"name": "m", "parameters": 12}))
    (results / "prompts.jsonl").write_text('{"id": "1", "text": "née"}\n{"id": "2", "text": "b"}\n')
    numbers = np.random.default_rng(0).normal(size=(20_000, 2))
    pd.DataFrame(numbers, columns=["k", "coupling"]).to_parquet(
        results / "coupling.parquet", write_page_checksum=True
    )
    whole = example(prompts=3, k=2)
    ids = {str(prompt): "fingerprint" for prompt in whole["prompt"].values}
    for n, prompt in enumerate(ids):
        SVD.write(results / "parts", prompt, whole.isel(prompt=[n]), ids[prompt])
    SVD.join(results / "parts", results / "svd.zarr", ids)
    write_store(whole[["S"]], results / "miscoupling.zarr")
    (results / "emergence.png").write_bytes(b"\x89PNG picture")
    (results / "report.html").write_text("<title>née</title>", encoding="utf-8")
    for name, file in ARTIFACTS.items():
        kind, *rest = name.split("/")
        facets = dict(zip(OWN, rest, strict=False))
        if kind == "prompts":
            facets = {"dataset": "d"}
        if kind == "figure":
            facets = {"figure": "emergence", "format": "png"}
        write_entry(root / "entries" / f"{kind}.yml", kind, results / file, facets)
    return root


@pytest.fixture
def study(original: Path, tmp_path: Path) -> Path:
    """A copy, moved to a folder whose name has odd characters, with its catalog."""
    root = shutil.copytree(original, tmp_path / "a study, 50% #1")
    join((root / "entries").glob("*.yml"), root / "catalog" / "c.yml")
    return root


def found(study: Path) -> dict[str, str]:
    catalog = open_catalog(study / "catalog" / "c.yml")
    return {verdict.entry: verdict.status for verdict in verify_study(catalog)}


def run(study: Path, *words: str):
    return CliRunner().invoke(cli.app, ["verify", str(study / "catalog" / "c.yml"), *words])


def flip(file: Path, place: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 16
    file.write_bytes(content)


def chunk(store: Path, variable: str) -> Path:
    return next(file for file in (store / variable).glob("c.*") if file.is_file())


def test_a_study_that_is_whole_is_said_to_be(study: Path, monkeypatch):
    assert found(study) == dict.fromkeys(ARTIFACTS, "right")
    monkeypatch.chdir(study / "catalog")  # from any directory
    result = CliRunner().invoke(cli.app, ["verify", "c.yml"])
    assert (result.exit_code, result.stdout) == (0, "7 artifacts: all unchanged\n")


@pytest.mark.parametrize(("name", "file"), ARTIFACTS.items())
def test_what_is_missing_is_named(study: Path, name: str, file: str):
    path = study / "results" / file
    (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    assert found(study) == {**dict.fromkeys(ARTIFACTS, "right"), name: "missing"}
    result = run(study)
    assert result.exit_code == 3
    assert f"missing: {name}\n  {path}\n  it is missing\n" in result.stdout
    assert "\n  rm " not in result.stdout
    assert "\n  snakemake --configfile" in result.stdout
    assert result.stdout.endswith("7 artifacts: 6 right, 1 missing\n")


def removed_chunk(store: Path) -> str:
    file = chunk(store, "S")
    file.unlink()
    return f"{file.relative_to(store)} is missing"


def flipped_chunk(store: Path) -> str:
    file = chunk(store, "S")
    flip(file)
    return f"{file.relative_to(store)} cannot be read"


def emptied_chunk(store: Path) -> str:
    file = chunk(store, "S")
    file.write_bytes(b"")
    return f"{file.relative_to(store)} is missing or empty"


def changed_metadata(store: Path) -> str:
    file = store / "S" / "zarr.json"
    file.write_text(file.read_text().replace("float32", "float64"))
    return "S/zarr.json was changed"


def no_root(store: Path) -> str:
    (store / "zarr.json").unlink()
    return "zarr.json is missing"


def no_group(store: Path) -> str:
    (store / "zarr.json").write_text("{}")
    return "zarr.json is not the metadata"


def a_file_in_its_place(store: Path) -> str:
    shutil.rmtree(store)
    store.write_text("")
    return "zarr.json is missing"


@pytest.mark.parametrize(
    "damage",
    [
        *(removed_chunk, flipped_chunk, emptied_chunk),
        *(changed_metadata, no_root, no_group, a_file_in_its_place),
    ],
)
@pytest.mark.parametrize("name", [STORE, "miscoupling/m/main/d"])
def test_damage_in_a_store_is_found_and_its_file_named(study: Path, name: str, damage: Callable):
    store = study / "results" / ARTIFACTS[name]
    reason = damage(store)
    assert found(study) == {**dict.fromkeys(ARTIFACTS, "right"), name: "damaged"}
    result = run(study)
    assert result.exit_code == 3
    assert f"damaged: {name}\n  {store}\n  {reason}" in result.stdout


def test_every_flipped_byte_of_a_table_is_damage_or_change(study: Path):
    path = study / "results" / "coupling.parquet"
    content = path.read_bytes()
    for place in np.random.default_rng(1).integers(len(content), size=25):
        flip(path, int(place))
        assert found(study)[TABLE] in ("damaged", "changed")
        path.write_bytes(content)
    assert found(study)[TABLE] == "right"
    flip(path)  # in the midst of the numbers: its page's checksum tells
    assert found(study)[TABLE] == "damaged"


@pytest.mark.parametrize("file", ["report.html", "emergence.png", "model.json", "prompts.jsonl"])
def test_other_content_is_told_from_damage_where_the_format_can(study: Path, file: str):
    path, name = study / "results" / file, {v: k for k, v in ARTIFACTS.items()}[file]
    path.write_bytes(path.read_bytes().replace(b"e", b"a"))
    assert found(study)[name] == "changed"
    path.write_bytes(path.read_bytes()[:-5])
    assert found(study)[name] == ("damaged" if "json" in file else "changed")


def test_another_whole_store_in_its_place_is_a_change(study: Path):
    store = study / "results" / "miscoupling.zarr"
    shutil.rmtree(store)
    write_store(example(prompts=2, k=2)[["S"]], store)
    assert found(study)["miscoupling/m/main/d"] == "changed"


def test_what_is_printed_removes_what_is_wrong_and_nothing_else(study: Path):
    for name in (STORE, TABLE):
        path = study / "results" / ARTIFACTS[name]
        flip(chunk(path, "A") if path.is_dir() else path)
    shown = json.loads(run(study, "--json").stdout)
    assert (shown["artifacts"], shown["right"], shown["damaged"]) == (7, 5, 2)
    commands = [shlex.split(each["remove"]) for each in shown["entries"]]
    assert sorted(command[-1] for command in commands) == sorted(
        str(study / "results" / ARTIFACTS[name]) for name in (STORE, TABLE)
    )
    text = run(study).stdout
    assert all(f"\n  {shlex.join(command)}\n" in text for command in commands)


def test_what_runs_the_study_again_is_said_with_its_configuration(study: Path):
    flip(study / "results" / ARTIFACTS[TABLE])
    assert "\n  snakemake --configfile CONFIG.yaml " in run(study).stdout  # joined by hand
    out = study / "catalog" / "c.yml"
    configured = {"study": "s", "results": study / "results", "configuration": "my studies/s.yaml"}
    out.unlink()
    join((study / "entries").glob("*.yml"), out, **configured)
    assert "\n  snakemake --configfile 'my studies/s.yaml' " in run(study).stdout

    out.unlink()
    whole = "snakemake --configfile a.yaml b.yaml --config 'extract={\"k\": 4}'"
    join((study / "entries").glob("*.yml"), out, **configured, command=whole)
    assert f"\n  {whole} " in run(study).stdout


def test_entries_without_a_digest_are_said_not_to_be_checked(study: Path):
    """As earlier versions wrote them, with stores that carry none."""
    file = study / "catalog" / "c.yml"
    content = json.loads(file.read_text())
    for entry in content["entries"].values():
        entry["metadata"].pop("digest", None)
    file.write_text(json.dumps(content))
    store = study / "results" / "miscoupling.zarr"
    shutil.rmtree(store)
    example(prompts=2, k=2)[["S"]].to_zarr(store, zarr_format=3, consolidated=False)
    result = run(study)
    assert result.exit_code == 0
    assert f"not checked: {TABLE} (its entry has no digest)\n" in result.stdout
    assert result.stdout.endswith("7 artifacts: 7 not checked\n")
    # What a format can tell, it still tells.
    flip(study / "results" / "coupling.parquet")
    (store / "S" / "zarr.json").write_text("{}")
    assert found(study) == {
        **dict.fromkeys(ARTIFACTS, "not checked"),
        TABLE: "damaged",
        "miscoupling/m/main/d": "damaged",
    }


def test_what_leads_out_of_the_study_is_not_read_unless_allowed(study: Path):
    path = study / "results" / "report.html"
    shutil.move(path, study.parent / "report.html")
    path.symlink_to(study.parent / "report.html")
    assert found(study)["report"] == "not allowed"
    result = run(study)
    assert result.exit_code == 3
    assert "not allowed: report\n" in result.stdout
    assert "is outside" in result.stdout
    assert run(study, "--allow-outside").exit_code == 0


def test_a_file_that_may_not_be_read_is_named(study: Path, monkeypatch):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("blockcoupling.study.verify.checksums.digest", refuse)
    catalog = open_catalog(study / "catalog" / "c.yml")
    verdicts = {verdict.entry: verdict for verdict in verify_study(catalog)}
    assert "cannot be read (Permission denied)" in as_text(verdicts["report"])


def test_no_catalog_is_an_error_of_the_user(tmp_path: Path):
    result = CliRunner().invoke(cli.app, ["verify", str(tmp_path / "none.yml")])
    assert result.exit_code == 2
    assert "no catalog at" in result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one model that was trained in it, as the workflow leaves it."""
    root = tmp_path_factory.mktemp("trained")
    results = root / "results"
    shape = {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 1, "context": 16, "batch": 2}
    place = train({"name": "m", **shape, "checkpoints": [1]}, results / "checkpoints" / "m")[1]
    about = {"name": "m", "checkpoint": "step1", "source": "train", "path": str(place), "step": 1}
    record = model_record(about)
    weights, model = (results / folder / "m" / "step1.json" for folder in ("weights", "models"))
    for file in (weights, model):
        write_record(record, file)
    record["training"] = json.loads((place / "training.json").read_text())
    made = making([], {"model": weights}, record)
    facets = {"model": "m", "checkpoint": "step1"}
    write_entry(root / "entries" / "model.yml", "model", model, facets, made)
    join([root / "entries" / "model.yml"], root / "c.yml", study="s", results=results)
    return root


@pytest.mark.parametrize(
    ("file", "removed"),
    [
        *[
            (f"checkpoints/m/step1/{name}", "checkpoints/m/step1")
            for name in ("model.safetensors", "config.json", "tokenizer.json", "training.json")
        ],
        ("weights/m/step1.json", "weights/m/step1.json"),
    ],
)
def test_a_flipped_bit_in_what_results_were_made_from_is_found(
    trained: Path, tmp_path: Path, file: str, removed: str
):
    root = shutil.copytree(trained, tmp_path / "moved")
    words = ["verify", str(root / "c.yml")]
    assert CliRunner().invoke(cli.app, words).stdout == "1 artifacts: all unchanged\n"
    flip(root / "results" / file)
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 3
    assert "model/m/step1" in result.stdout
    command = f"rm {'-r ' * (removed != file)}{root / 'results' / removed}\n"
    assert f"\n  {command}" in result.stdout
    (root / "results" / file).unlink()
    shutil.rmtree(root / "results" / "checkpoints" / "m")
    assert "the checkpoint is missing" in CliRunner().invoke(cli.app, words).stdout


def test_a_job_that_finds_its_checkpoint_damaged_says_what_makes_it_again(trained: Path, tmp_path):
    root = shutil.copytree(trained, tmp_path / "s")
    place = root / "results/checkpoints/m/step1"
    record = json.loads((root / "results/weights/m/step1.json").read_text()) | {"path": str(place)}
    flip(place / "model.safetensors", -1)
    with pytest.raises(UserError, match=f"Remove {place} and run snakemake again"):
        load_model(record)
