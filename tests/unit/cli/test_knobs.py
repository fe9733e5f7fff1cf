"""Options are generated from the fields of a model: a new field gives an option, flag and help."""

import inspect
import json
from typing import Annotated, Any, Literal

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from typer.testing import CliRunner

from blockcoupling import cli
from blockcoupling.cli.knobs import Except, takes_settings
from blockcoupling.config.flags import flags_of, option
from blockcoupling.config.measurement import CompareTokens, Extract, Knobs
from blockcoupling.errors import UserError

VERBS = typer.main.get_command(cli.app).commands


ALL = Except()


class Grown(Extract):
    """The settings of a measurement with one of every kind more."""

    patience: Annotated[int, Field(ge=2)] = 5
    """How long one waits."""
    mood: Literal["calm", "hasty"] = "calm"
    """How one waits."""
    upright: bool = True
    """Waiting on one's feet."""
    intervals: list[int] = Field(default=[1, 2])
    """When one looks up."""


def verb_of(kind: type[Knobs], but: Except = ALL) -> Any:
    """A program of one verb, which keeps what it was given in `seen`."""
    seen: list[Any] = []

    @takes_settings
    def verb(name: str, chosen: Annotated[kind, but], last: int = 0) -> None:
        seen.append(chosen)

    app = typer.Typer()
    app.command()(verb)

    def run(*words: str) -> Any:
        ended = CliRunner().invoke(app, ["x", *words], env={"COLUMNS": "200"})
        if isinstance(ended.exception, UserError):
            raise ended.exception
        return seen.pop() if seen else ended.output

    run.parameters = inspect.signature(verb).parameters
    return run


def test_a_field_is_an_option_with_its_default_choices_and_help():
    run = verb_of(Grown)
    assert run() == Grown()
    assert list(run.parameters) == ["name", *Grown.model_fields, "last"]
    text = run("--help")
    for name, field in Grown.model_fields.items():
        assert option(name) in text
        assert field.description, name
    assert "calm|hasty" in text
    assert "How long one waits." in text
    chosen = run("--patience", "7", "--mood", "hasty", "--no-upright", "--intervals", "[4]")
    assert chosen == Grown(patience=7, mood="hasty", upright=False, intervals=[4])
    assert "'bored' is not one of 'calm', 'hasty'" in run("--mood", "bored")
    assert "Invalid value for '--patience'" in run("--patience", "1")


def test_a_field_is_a_flag():
    grown = Grown(patience=7, upright=False, intervals=[4])
    assert flags_of(grown) == ["--patience", "7", "--no-upright", "--intervals", "[4]"]
    assert flags_of(grown, Extract) == []


def test_a_verb_may_go_without_an_option_or_have_a_further_name_for_it():
    run = verb_of(Extract, Except(without=("k", "batch"), also={"tokens": "--token"}))
    assert not {"k", "batch"} & set(run.parameters)
    assert run("--token", "-1").tokens == [-1]
    assert run("--tokens", '{"every": 3}').tokens == {"every": 3}


def test_lists_come_as_json_or_from_a_file(tmp_path):
    run = verb_of(Extract)
    (tmp_path / "tokens.json").write_text("[[0, 2]]")
    assert run("--tokens", f"@{tmp_path / 'tokens.json'}").tokens == [[0, 2]]
    with pytest.raises(UserError, match="--tokens is not JSON"):
        run("--tokens", "[1")
    with pytest.raises(UserError, match=r"tokens = 'some': should be last.*\n.*JSON"):
        run("--tokens", "some")


@pytest.mark.parametrize(("verb", "kind"), [("extract", Extract), ("tokenwise", CompareTokens)])
def test_the_steps_have_every_setting(verb, kind):
    options = {one.name for one in VERBS[verb].params}
    assert set(kind.model_fields) - options <= {"swapped"}


tokens = st.one_of(
    st.sampled_from(["last", "all"]),
    st.lists(st.integers(-9, 9), min_size=1, max_size=3),
    st.integers(1, 9).map(lambda n: {"every": n}),
)
some = st.fixed_dictionaries(
    {},
    optional={
        "k": st.integers(1, 99),
        "tokens": tokens,
        "tolerance": st.floats(1e-12, 1.0),
        "method": st.sampled_from(["auto", "dense", "krylov"]),
        "context": st.sampled_from(["auto", "decode", "full"]),
        "dtype": st.sampled_from(["float32", "float64"]),
        "device": st.sampled_from(["cpu", "cuda:1"]),
        "vectors": st.booleans(),
        "batch": st.integers(1, 9),
        "upright": st.booleans(),
        "intervals": st.lists(st.integers(), max_size=3),
    },
)


@settings(max_examples=50, deadline=None)
@given(some)
def test_flags_and_options_are_each_other_s_way_back(chosen):
    grown = Grown(**chosen)
    assert RUN(*flags_of(grown)) == grown
    assert json.loads(grown.model_dump_json()) == grown.model_dump(mode="json")


RUN = verb_of(Grown)
