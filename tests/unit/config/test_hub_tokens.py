"""A token of the hub in a configuration is refused and not printed."""

from pathlib import Path
from typing import Any

import pytest

from blockcoupling.config.tokens import HIDDEN, without_tokens
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config

TOKEN = "hf_" + "PlantedTokenThatNobodyMaySee012345"
MODELS = {"m": {"train": {"steps": 1}}}


@pytest.mark.parametrize(
    ("planted", "place"),
    [
        ({"models": {"m": {"id": "a/b", "token": TOKEN}}}, "models.m.token"),
        ({"models": {"m": {"train": {"steps": 1}, "facts": {"key": TOKEN}}}}, "models.m.facts.key"),
        ({"models": {"m": TOKEN}}, "models.m"),
        ({"models": MODELS, "study": f"of-{TOKEN}"}, "study"),
        ({"models": MODELS, "reduce": {"variants": ["frobenius", TOKEN]}}, "reduce.variants[1]"),
        ({"models": MODELS, TOKEN: 1}, HIDDEN),
        ({"models": {"m": {"path": f"https://me:{TOKEN}@huggingface.co/a"}}}, "models.m.path"),
    ],
)
def test_it_is_refused_wherever_it_stands(planted: dict[str, Any], place: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(planted)
    said = str(error.value)
    assert f"- {place}: looks like a token of the hub" in said
    assert TOKEN not in said


def test_what_is_no_yaml_does_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"models: {{m: [{TOKEN}}}\n")
    with pytest.raises(UserError, match="is not YAML") as error:
        load_config(file)
    assert TOKEN not in str(error.value)


def test_the_rest_of_a_text_stays() -> None:
    assert without_tokens(f"with {TOKEN}, and hf_xet 1.2") == f"with {HIDDEN}, and hf_xet 1.2"
