"""The provenance of an artifact is in its entry, and its inputs are found again."""

import hashlib
import json
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from blockcoupling.catalog import Catalog, join, making, open_catalog, write_entry
from blockcoupling.cli import app
from blockcoupling.cli.app import words_typed
from blockcoupling.cli.options import how_made
from blockcoupling.errors import UserError
from blockcoupling.sources.identity import content_identity
from blockcoupling.study.provenance import as_text, provenance, upstream

OWN = ("--facet", "model=m", "--facet", "checkpoint=main", "--facet", "dataset=mine")
TABLE = Path("results", "tables", "coupling.parquet")
NAME = "coupling/m/main/mine"


def run(*words: object) -> str:
    ended = CliRunner().invoke(app, list(map(str, words)))
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a study by hand: one model, two prompts, tables, a catalog."""
    root = tmp_path_factory.mktemp("provenance") / "study"
    results, entries = root / "results", root / "entries"
    results.mkdir(parents=True)
    weights = save_tiny_model(root / "weights", hidden_size=8, context=128)
    spec = {"name": "m", "checkpoint": "main", "source": "local", "path": str(weights)}
    record, prompts = results / "record.json", results / "prompts.jsonl"
    asked = {"source": "builtin", "name": "handwritten", "prompts": 2, "seed": 7}
    run("model", "--spec", json.dumps(spec), "--out", record)
    run(
        *("model", "--spec", json.dumps(spec), "--weights", record, "--out", results / "m.json"),
        *("--entries", entries / "model", *OWN[:4]),
    )
    run(
        *("prompts", "--spec", json.dumps(asked), "--out", prompts),
        *("--entries", entries / "prompts", *OWN[4:]),
    )
    run(
        *("extract", "--model", record, "--prompts", prompts, "--parts", results / "parts"),
        *("--out", results / "svd.zarr", "--k", 2, "--seed", 5, "--entries", entries / "svd", *OWN),
    )
    run(
        *("reduce", "--svd", results / "svd.zarr", "--out", results / "tables", "--k", 2),
        *("--variant", "frobenius", "--entries", entries / "tables", *OWN),
    )
    run("catalog", "--out", root / "catalog" / "catalog.yml", *entries.rglob("*.yml"))
    return root


@pytest.fixture
def root(measured: Path, tmp_path: Path) -> Path:
    """Return a copy, elsewhere: nothing that is reported depends on the place of a study."""
    return shutil.copytree(measured, tmp_path / "moved")


def catalog_of(root: Path) -> Catalog:
    return open_catalog(root / "catalog" / "catalog.yml")


def test_a_store_tells_code_configuration_model_seeds_and_libraries(root: Path) -> None:
    found = provenance(catalog_of(root), "svd/m/main/mine")
    made = found["made"]
    assert found["unchanged"] is True
    assert made["code"]["version"] == version("blockcoupling")
    assert made["command"][:2] == ["blockcoupling", "extract"]
    assert made["command"][made["command"].index("--k") + 1] == "2"
    assert made["libraries"]["python"] == platform.python_version()
    assert made["libraries"]["torch"] == version("torch")
    assert "threads" in made["machine"]
    identity = content_identity({"path": root / "weights"})
    assert made["model"]["identity"]["weights"] == identity["weights"]
    assert made["model"]["source"] == "local"
    assert found["seeds"]["--seed"] == "5"
    assert found["attributes"]["model"] == "m"


def test_the_commit_is_that_of_the_checkout() -> None:
    here = Path(__file__).parents[3]
    if not (here / ".git").exists():
        pytest.skip("this is no checkout")
    said = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert making.making([], {})["code"]["commit"] == said.stdout.strip()


def test_what_it_was_made_from_is_followed(root: Path) -> None:
    catalog = catalog_of(root)
    found = provenance(catalog, NAME)
    svd = found["from"]["svd"]
    assert (svd["entry"], svd["unchanged"]) == ("svd/m/main/mine", True)
    assert svd["digest"] == catalog.entries["svd/m/main/mine"].metadata["digest"]
    assert list(upstream(catalog, NAME)) == [(1, "svd/m/main/mine"), (2, "prompts/mine")]
    record = provenance(catalog, "svd/m/main/mine")["from"]["model"]
    assert record["path"] == str(root / "results" / "record.json")  # of the copy
    digest = hashlib.sha256((root / "results" / "record.json").read_bytes()).hexdigest()
    assert record["digest"] == digest
    assert provenance(catalog, "prompts/mine")["seeds"] == {"`seed`": 7}


def test_the_verb_prints_it(root: Path) -> None:
    where = ("--catalog", root / "catalog" / "catalog.yml")
    said = run("provenance", "svd/m/main/mine", *where)
    catalog = catalog_of(root)
    digest = catalog.entries["svd/m/main/mine"].metadata["digest"]
    for told in (f"sha256 {digest}, unchanged", "--seed: 5", "prompts: prompts/mine"):
        assert told in said
    assert f"torch {version('torch')}" in said
    told = json.loads(run("provenance", NAME, *where, "--json"))
    assert set(told["upstream"]) == {"svd/m/main/mine", "prompts/mine"}
    assert told["upstream"]["prompts/mine"]["seeds"] == {"`seed`": 7}


def test_what_changed_since_is_said(root: Path) -> None:
    prompts = root / "results" / "prompts.jsonl"
    prompts.write_text(prompts.read_text().replace("e", "a", 1))
    found = provenance(catalog_of(root), "prompts/mine")
    assert found["unchanged"] is False
    assert "CHANGED since it was entered" in as_text(found, [])
    # Entered again, it is not the one from which the store was computed.
    entry = root / "entries" / "prompts" / "prompts.yml"
    write_entry(entry, "prompts", prompts, {"dataset": "mine"})
    join((root / "entries").rglob("*.yml"), root / "catalog" / "catalog.yml")
    found = provenance(catalog_of(root), "svd/m/main/mine")
    assert found["from"]["prompts"]["unchanged"] is False
    assert "prompts/mine (sha256 " in as_text(found, [])
    assert ", changed since" in as_text(found, [])


def test_what_was_entered_by_hand_says_so(root: Path) -> None:
    entry = root / "entries" / "prompts" / "prompts.yml"
    run(
        *("entry", "--kind", "prompts", "--path", root / "results" / "prompts.jsonl"),
        *("--out", entry, *OWN[4:]),
    )
    join((root / "entries").rglob("*.yml"), root / "catalog" / "catalog.yml")
    found = provenance(catalog_of(root), "prompts/mine")
    assert found["made"] == {}
    assert "not recorded" in as_text(found, [])


def test_what_was_read_through_a_catalog_tells_what_was_in_it(root: Path, tmp_path: Path) -> None:
    before = root / "catalog" / "before.yml"
    shutil.move(root / "catalog" / "catalog.yml", before)
    (root / "statistics.parquet").write_bytes((root / TABLE).read_bytes())
    (root / "elsewhere.parquet").write_bytes((root / TABLE).read_bytes())
    made = making.making(["correlate"], {"catalog": before})
    write_entry(root / "entries" / "a.yml", "correlation", root / "statistics.parquet", None, made)
    outside = shutil.copy(before, tmp_path / "outside.yml")
    made = making.making(["correlate"], {"catalog": Path(outside)})
    write_entry(root / "entries" / "b.yml", "predictors", root / "elsewhere.parquet", None, made)
    join((root / "entries").rglob("*.yml"), root / "catalog" / "catalog.yml")
    found = provenance(catalog_of(root), "correlation")
    assert found["from"]["catalog"]["entries"] == sorted(open_catalog(before).entries)
    assert ": 1 coupling, 1 inverse_depth_fit, 1 locality, " in as_text(found, [])
    # Another's catalog could lead to any file: it is reported, and not opened.
    assert "entries" not in provenance(catalog_of(root), "predictors")["from"]["catalog"]


def test_a_training_is_told_with_its_seed(tmp_path: Path) -> None:
    run(
        *("train", "--out", tmp_path, "--spec"),
        '{"name": "t", "hidden_size": 16, "blocks": 2, "heads": 2, "context": 16, "batch": 2,'
        ' "steps": 1, "seed": 3, "checkpoints": [0]}',
    )
    spec = {"name": "t", "checkpoint": "step0", "source": "train", "path": str(tmp_path / "step0")}
    run("model", "--spec", json.dumps(spec), "--out", tmp_path / "t.json")
    run(
        *("model", "--spec", json.dumps(spec), "--out", tmp_path / "facts.json"),
        *("--weights", tmp_path / "t.json", "--entries", tmp_path, "--facet", "model=t"),
    )
    join([tmp_path / "model.yml"], tmp_path / "c.yml")
    found = provenance(open_catalog(tmp_path / "c.yml"), "model/t")
    assert 3 in found["seeds"].values()
    assert found["made"]["model"]["training"]["tokens"] == 0


def test_an_entry_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="did you mean svd/m/main/mine"):
        provenance(catalog_of(root), "svd/m/main/mein")


@pytest.mark.parametrize(
    "theirs",
    [
        "text",
        {"command": "rm -r /"},
        {"command": [1]},
        {"inputs": {"svd": {}}},
        {"inputs": {"svd": ["/etc/passwd"]}},
        {"libraries": ["numpy"]},
    ],
)
def test_another_form_is_refused(root: Path, theirs: object) -> None:
    file = root / "catalog" / "catalog.yml"
    content = json.loads(file.read_text())
    content["entries"][NAME]["metadata"]["made"] = theirs
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"the provenance in its entry is damaged"):
        provenance(catalog_of(root), NAME)


def test_what_a_terminal_would_obey_is_not_printed(root: Path) -> None:
    file = root / "catalog" / "catalog.yml"
    content = json.loads(file.read_text())
    made = content["entries"][NAME]["metadata"]["made"]
    made["command"] += ["--spec", "{no JSON", "\x1b]0;theirs\x07"]
    file.write_text(json.dumps(content))
    found = provenance(catalog_of(root), NAME)
    said = as_text(found, [])
    assert "\\x1b]0;theirs\\x07" in said
    assert "\x1b" not in said


def test_intake_alone_reads_what_has_braces_in_its_command(root: Path) -> None:
    import intake

    plain = intake.open_catalog(str(root / "catalog" / "catalog.yml"))
    assert len(plain["prompts/mine"].read()) == 2


def test_a_secret_in_a_command_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_PlantedTokenThatNobodyMaySee"
    monkeypatch.setenv("HF_TOKEN", token)
    before = words_typed.set(("prompts", "--spec", f'{{"token": "{token}"}}'))
    try:
        assert how_made({})["command"][3] == '{"token": "(hidden)"}'
    finally:
        words_typed.reset(before)
