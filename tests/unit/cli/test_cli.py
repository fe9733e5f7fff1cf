"""The command line: what it says, how it fails, and that its examples are right."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from blockcoupling import __version__, cli
from blockcoupling.catalog import open_catalog
from blockcoupling.errors import MeasurementError, UserError

ROOT = Path(__file__).parents[3]
VERBS = typer.main.get_command(cli.app).commands
HANDWRITTEN = '{"source": "builtin", "name": "handwritten", "prompts": 2}'


def run(*words: str, stdin: str | None = None):
    return CliRunner().invoke(cli.app, list(words), input=stdin)


def test_version():
    version, citation = run("--version").output.strip().split("\n")
    assert version == f"blockcoupling {__version__}"
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"title: (Transformer .*)", cited)[1] in citation
    assert re.search(r"arxiv.org/abs/(\S+)", cited)[1] in citation


def test_all_verbs_are_there():
    steps = (
        "train model prompts extract tokenwise damage reduce score entry catalog correlate costs"
    )
    assert set(VERBS) == {
        *steps.split(),
        *("damage-statistics", "intervention", "weight-spectra", "figure", "figures", "report"),
        *("check", "clean", "explore"),
        *("together", "plan", "calibrate", "status"),
        *("verify", "provenance", "measure", "demo", "publish", "combine"),
    }


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_the_verb_accepts(verb):
    text = " ".join(VERBS[verb].help.split())
    example = re.search(r"Example: `(.*)`", text)
    assert example, text
    program, name, *words = shlex.split(example[1])
    assert (program, name) == ("blockcoupling", verb)
    # Parses every option and argument, and refuses those that do not exist.
    VERBS[verb].make_context(verb, words)


@pytest.mark.parametrize(
    ("error", "status"), [(UserError("no model X"), 2), (MeasurementError("block 3"), 3)]
)
def test_an_error_is_one_message_on_stderr(monkeypatch, error, status, tmp_path):
    def fail(_):
        raise error

    monkeypatch.setattr("blockcoupling.study.check.load_config", fail)
    words = ["check", "--config", str(tmp_path / "study.yaml")]
    result = run(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"error: {error}\n")

    debugged = run("--debug", *words)
    assert debugged.exception is error


def test_an_error_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr("blockcoupling.study.check.load_config", fail)
    assert isinstance(run("check", "--config", str(tmp_path)).exception, ZeroDivisionError)


def test_the_program_ends_without_a_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "blockcoupling",
        "check",
        "--config",
        str(tmp_path / "no.yaml"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr


def test_starting_is_light():
    heavy = {"torch", "transformers", "xarray", "pandas", "matplotlib", "dask", "intake", "numpy"}
    code = f"import sys, blockcoupling.cli; print(sorted({heavy!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_plan_is_a_table_or_json(tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text("models: {tiny: {train: {steps: 4}}}\n")
    words = ["plan", "--config", str(config)]
    table, data = run(*words), json.loads(run(*words, "--json").stdout)
    assert f"{data['totals']['jobs']} jobs" in table.stdout
    assert {line["model"] for line in data["steps"]} == {"tiny"}


@pytest.mark.parametrize("how", ["inline", "file"])
def test_a_verb_writes_its_artifact_and_its_entry(tmp_path, how):
    spec = HANDWRITTEN
    if how == "file":
        (tmp_path / "spec.json").write_text(HANDWRITTEN)
        spec = f"@{tmp_path / 'spec.json'}"
    out, entries = tmp_path / "prompts.jsonl", tmp_path / "entries"
    made = run(
        *("prompts", "--spec", spec, "--out", str(out)),
        *("--entries", str(entries), "--facet", "dataset=mine"),
    )
    assert made.exit_code == 0, made.output
    joined = run(
        *("catalog", "--entries-from", "-", "--out", str(tmp_path / "catalog.yml")),
        stdin=f"{entries / 'prompts.yml'}\n",
    )
    assert joined.exit_code == 0, joined.output
    found = open_catalog(tmp_path / "catalog.yml").search(dataset="mine")
    assert len(found.frame()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompts", "--spec", "{", "--out", "x"], "--spec is not JSON"),
        (["prompts", "--spec", "[1]", "--out", "x"], "must be a JSON object"),
        (["prompts", "--spec", "@absent.json", "--out", "x"], "cannot read absent.json"),
        (["catalog", "--out", "x"], "no entry files"),
        (["entry", "--kind", "model", "--path", "x", "--out", "y", "--facet", "z"], "'z'"),
        (
            ["extract", "--tokens", "some", "--model=m", "--prompts=p", "--parts=q", "--out=o"],
            "JSON",
        ),
    ],
)
def test_bad_options_are_explained(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(Path().iterdir())
