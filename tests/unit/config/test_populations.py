"""One entry for many models: the models, their names, and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.config.populations import FACTORS, Design, Range
from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config
from blockcoupling.study.members import members_table

OVER: dict[str, Any] = {
    "blocks": {"low": 2, "high": 8},
    "hidden_size": {"low": 32, "high": 128},
    "heads": [2, 4],
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "seed": {"low": 0, "high": 999},
}


def study(**models: Any) -> Study:
    return load_config({"models": models})


def swept(points: int, **more: Any) -> dict[str, Any]:
    return {"design": {"points": points, "over": OVER}, "checkpoints": [0, 600], **more}


def complaint(**population: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        study(p=population)
    return str(caught.value).splitlines()[1:]


def test_members_are_ordinary_models_with_what_they_were_given_among_their_facts() -> None:
    found = study(sweep=swept(5, family="neox", facts={"why": "a test"}, together=3))
    assert list(found.models) == [f"sweep-00{n}" for n in range(5)]
    for name, section in found.models.items():
        facts = section.facts
        assert facts["population"] == "sweep"
        assert facts["why"] == "a test"
        trained = section.train.model_dump()
        assert {key: trained[key] for key in facts[FACTORS]} == facts[FACTORS]
        assert set(facts[FACTORS]) == set(OVER)
        assert section.train.hidden_size % (8 * section.train.heads) == 0
        assert found.model_spec(name, "step600")["facts"] == facts
    assert {section.together for section in found.models.values()} == {3}


def test_more_members_and_other_models_leave_those_there_are_as_they_are() -> None:
    few = study(sweep=swept(6))
    many = study(other={"id": "x/y"}, sweep=swept(48), second=swept(3))
    for name, section in few.models.items():
        assert many.models[name] == section
        assert many.train_spec(name) == few.train_spec(name)


def test_a_grid_is_every_combination_named_after_its_values() -> None:
    grid = {"learning_rate": [0.001, 0.0003], "seed": [0, 1]}
    few = study(doses={"grid": grid, "train": {"blocks": 3}})
    assert list(few.models) == [
        *("doses-learning_rate0.001-seed0", "doses-learning_rate0.001-seed1"),
        *("doses-learning_rate0.0003-seed0", "doses-learning_rate0.0003-seed1"),
    ]
    assert {section.train.blocks for section in few.models.values()} == {3}
    grid = {"learning_rate": [0.01, 0.001, 0.0003], "seed": [2, 1, 0]}
    many = study(doses={"grid": grid, "train": {"blocks": 3}})
    assert len(many.models) == 9
    assert {name: many.models[name] for name in few.models} == few.models


def test_words_of_a_file_are_the_numbers_they_look_like(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "models:\n"
        "  a: {grid: {seed: [1, 2], learning_rate: [1e-3]}}\n"
        "  b: {design: {points: 2, over: {heads: [2], seed: {low: 1, high: 9}}}}\n"
    )
    found = load_config(file)
    assert found.models["a-seed1-learning_rate0.001"].train.learning_rate == 0.001
    assert found.models["b-001"].train.heads == 2


def test_a_design_fills_every_range_evenly() -> None:
    # Of 64 points of a scrambled Sobol sequence one is in each 64th of every axis.
    shares = np.array(Design(points=64, over=OVER).shares())
    assert (np.sort(np.floor(64 * shares), axis=0) == np.arange(64)[:, None]).all()
    members = study(sweep=swept(64)).models.values()
    blocks = np.bincount([m.train.blocks for m in members], minlength=9)
    assert set(blocks[2:]) <= {8, 9, 10}  # 64 on 7 numbers, each room cutting two 64ths
    rates = sorted(math.log10(m.train.learning_rate) for m in members)
    # Even in the logarithm: within a 64th of the two decades, and three digits' rounding.
    assert np.abs(rates - np.linspace(-4, -2, 64)).max() < 2 / 64 + 0.01


@given(
    low=st.integers(1, 50),
    more=st.integers(1, 50),
    log=st.booleans(),
    share=st.floats(0, 1, exclude_max=True),
)
def test_a_whole_number_stays_in_its_range(low: int, more: int, log: bool, share: float) -> None:
    value = Range(low=low, high=low + more, log=log).value(share, whole=True)
    assert isinstance(value, int)
    assert low <= value <= low + more


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_width_is_a_multiple_of_what_its_heads_need(share: float) -> None:
    assert Range(low=30, high=130).value(share, whole=True, unit=32) in (32, 64, 96, 128)
    assert Range(choices=[16, 32, 48, 64]).value(share, whole=True, unit=32) in (32, 64)


@pytest.mark.parametrize(
    ("population", "sentence"),
    [
        (
            {"design": {"points": 2, "over": {"blocs": [2]}}},
            "models.p.design.over.blocs: unknown key of train; did you mean blocks?",
        ),
        (
            {"design": {"points": 2, "over": {"blocks": {"low": 8, "high": 2}}}},
            "models.p.design.over.blocks: low 8 is not below high 2",
        ),
        (
            {"design": {"points": 2, "over": {"seed": {"low": 0, "high": 2, "log": True}}}},
            "models.p.design.over.seed: low 0 has no logarithm; choose one above 0",
        ),
        (
            {"design": {"points": 2, "over": {"seed": {"low": 0}}}},
            "models.p.design.over.seed: give either low and high, or a list of choices",
        ),
        (
            {"design": {"points": 2, "over": {"hidden_size": {"low": 40, "high": 60}}}},
            "models.p.design.over.hidden_size: no multiple of 32 is between 40 and 60",
        ),
        (
            {"grid": {"seed": [0, 1]}, "train": {"seed": 3}},
            "models.p.grid.seed: is set in train, too; remove one of them",
        ),
        ({"grid": {"seed": [0, 0]}}, "models.p.grid.seed: a value is given twice"),
        ({"grid": {"seed": []}}, "models.p.grid: give each key a list of values"),
        (
            {"grid": {"seed": [0]}, "design": {"points": 2, "over": {"heads": [2]}}},
            "models.p.grid: give either a grid or a design",
        ),
        (
            {"grid": {"blocks": [1, 2]}},
            "models.p.train.blocks: should be greater than or equal to 2 (not 1) "
            "(members p-blocks1)",
        ),
        (
            {"grid": {"seed": [0, 1, 2]}, "famly": "x"},
            "models.p.famly: unknown key; did you mean family?",
        ),
        (
            {"grid": {"seed": [{"a": 1}]}},
            "models.p.grid.seed: a value is a number or a word, not {'a': 1}; a key within a "
            "section is written with a dot",
        ),
    ],
)
def test_a_mistake_is_one_sentence(population: dict[str, Any], sentence: str) -> None:
    assert complaint(**population) == [f"  - {sentence}"]


def test_a_member_does_not_take_another_models_name() -> None:
    with pytest.raises(UserError, match="its member p-000 is also another model's name"):
        study(**{"p-000": {"train": {}}, "p": swept(2)})


def test_the_check_lists_every_member() -> None:
    listed = members_table(study(sweep=swept(3), plain={"train": {}})).splitlines()
    assert listed[0] == "sweep: 3 models"
    assert listed[1].split() == list(OVER)
    assert [line.split()[0] for line in listed[2:]] == ["sweep-000", "sweep-001", "sweep-002"]
    assert members_table(study(plain={"train": {}})) == ""
