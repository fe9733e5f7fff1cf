"""A setting is defined once: what a study fills in, what it refuses, and that no list is double."""

import re
from pathlib import Path

import pytest

import blockcoupling.measurement
from blockcoupling.config.measurement import Asked, CompareTokens, Extract, Settings, TokenSettings
from blockcoupling.config.presets import PRESETS
from blockcoupling.config.tokenwise import Tokenwise
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config

SRC = Path(blockcoupling.measurement.__file__).parents[1]
MODELS = {"models": {"m": {"train": {"hidden_size": 16, "heads": 2}}}}


def test_mistakes_are_sentences_all_at_once():
    with pytest.raises(UserError) as caught:
        Settings.of({"tolerance": -1.0, "mathod": "dense", "k": 1.5, "tokens": []})
    said = str(caught.value)
    assert len(said.splitlines()) == 4
    assert "tolerance = -1.0: choose one above 0, such as 1e-4" in said
    assert "unknown setting mathod; did you mean method?" in said
    assert "k = 1.5: should be a valid integer" in said
    assert "tokens = []: should be last, all, " in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1])
def test_a_tolerance_that_is_none(value):
    with pytest.raises(UserError, match="tolerance = "):
        Settings.of({"tolerance": value})


def test_settings_stay_as_they_are():
    with pytest.raises(ValueError, match="frozen"):
        Settings().k = 3


def test_a_preset_settles_and_is_not_a_setting():
    asked = Asked.of({"preset": "released", "k": 3})
    assert asked.settings == Settings(k=3, **PRESETS["released"].settings)
    with pytest.raises(UserError, match=r"method = 'krylov' goes against .*; Leave the preset out"):
        Asked.of({"preset": "released", "method": "krylov"})
    with pytest.raises(UserError, match="preset = 'mine': choose released"):
        Asked.of({"preset": "mine"})


def test_what_a_preset_settles_are_settings():
    for preset in PRESETS.values():
        assert set(preset.settings) <= set(Settings.model_fields)


def test_what_a_study_does_not_say_follows_from_its_other_sections():
    study = load_config({**MODELS, "seed": 7, "extract": {"device": "cuda"}, "tokenwise": {}})
    assert (study.extract.seed, study.extract.swapped) == (7, True)
    told = study.tokenwise
    assert (told.seed, told.swapped, told.device, told.tokens) == (7, True, "cuda", {"every": 4})


def test_what_a_study_says_is_taken():
    study = load_config(
        {
            **MODELS,
            "seed": 7,
            "extract": {"seed": 1, "swapped": True, "tolerance": 1e-3},
            "reduce": {"variants": ["frobenius"]},
            "tokenwise": {"tolerance": 1e-5, "seed": 2},
        }
    )
    assert (study.extract.seed, study.extract.swapped) == (1, True)
    told = study.tokenwise
    assert (told.seed, told.swapped, told.tolerance) == (2, False, 1e-5)
    with pytest.raises(UserError, match=r"extract.swapped: false, but a variant"):
        load_config({**MODELS, "extract": {"swapped": False}})


def test_a_checkpoint_that_cannot_be_streamed_is_not():
    models = {"models": {"m": {"train": {"hidden_size": 16, "heads": 2}, "init": True}}}
    study = load_config({**models, "extract": {"stream": True}})
    first, *_, last = study.checkpoints("m")
    assert not study.extract_of("m", first).stream
    assert study.extract_of("m", last).stream


def test_every_setting_has_a_help():
    for kind in (Extract, CompareTokens, Tokenwise):
        for name, field in kind.model_fields.items():
            assert field.description, name


SPELLED = re.compile(r"^\s+(\w+): .*=", re.MULTILINE)


def test_no_other_class_spells_the_settings():
    """Classes elsewhere that have several of them as fields, verbs that have them as parameters."""
    several = []
    names = {*Settings.model_fields, *TokenSettings.model_fields} - {"k", "tokens", "seed"}
    for path in SRC.rglob("*.py"):
        if path.parent.name == "config":
            continue
        for block in re.split(r"^(?:class|@|def) ", path.read_text(), flags=re.MULTILINE)[1:]:
            if len(names & set(SPELLED.findall(block))) >= 4:
                several.append(f"{path.name}: {block.splitlines()[0]}")
    # The sweep over blocks takes what it needs by name.
    assert [each for each in several if not each.startswith("decompose.py")] == []
