"""What a message tells its user to set can be set there."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

import blockcoupling
from blockcoupling import cli
from blockcoupling.config.measurement import Settings
from blockcoupling.config.study import Study

SRC = Path(blockcoupling.__file__).parent
VERBS = get_command(cli.app).commands
OPTIONS = {name: {o for p in verb.params for o in p.opts} for name, verb in VERBS.items()}


def sentences():
    """Every text of the package that is not a docstring, with its file."""
    for path in SRC.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and " " in text and id(node) not in docstrings:
                yield path, text


TEXTS = list(sentences())


def test_an_option_that_is_named_exists():
    known = set().union(*OPTIONS.values()) | {"--debug", "--version", "--help"}
    named = {
        (path.name, option)
        for path, text in TEXTS
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+(?![\w.*])", text)
        if path.parent.name == "cli"
    }
    assert len(named) > 5
    assert {each for each in named if each[1] not in known | {"--no-"}} == set()


def test_a_setting_that_is_named_is_one_and_has_that_value_on_every_way_in():
    named = {m for _, text in TEXTS for m in re.findall(r"\b([a-z_]+)='([a-z]+)'", text)}
    assert ("context", "full") in named
    for name, value in named:
        assert value in get_args(Settings.model_fields[name].annotation)
        for verb in ("measure", "extract"):
            assert f"--{name.replace('_', '-')}" in OPTIONS[verb]


@pytest.mark.parametrize("section", ["extract", "tokenwise", "reduce", "correlate"])
def test_a_key_that_is_named_is_one(section):
    annotation = Study.model_fields[section].annotation
    kind = next((each for each in get_args(annotation) if each is not type(None)), annotation)
    for path, text in TEXTS:
        for key in re.findall(rf"(?<![\w.`]){section}\.([a-z_]+)", text):
            assert key in kind.model_fields, f"{path.name}: {text}"


def test_what_bears_on_accuracy_can_be_set_for_one_model():
    assert {"--context", "--tolerance", "--method", "--matmul", "--final-norm"} <= OPTIONS[
        "measure"
    ]
