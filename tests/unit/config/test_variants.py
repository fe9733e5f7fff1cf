"""The variants of mis-coupling are one table: everything else has their names from it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from typer.main import get_command
from typer.testing import CliRunner

from blockcoupling import cli
from blockcoupling.config import variants
from blockcoupling.config.presets import PRESETS
from blockcoupling.config.variants import (
    DEFAULT_VARIANT,
    OF_BLOCKS,
    PRODUCTS,
    VARIANTS,
    VariantName,
    products,
)

ROOT = Path(__file__).parents[3]


def test_names_are_validated_by_the_table():
    assert get_args(VariantName) == tuple(VARIANTS)
    assert TypeAdapter(VariantName).validate_python(DEFAULT_VARIANT) == DEFAULT_VARIANT
    with pytest.raises(ValidationError):
        TypeAdapter(VariantName).validate_python("frobenious")


VERBS = [
    name
    for name, verb in get_command(cli.app).commands.items()
    if any(option.name == "variant" for option in verb.params)
]


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_offers_all_of_them_wherever_it_offers_any(verb):
    assert len(VERBS) >= 4
    refused = CliRunner().invoke(cli.app, [verb, "--variant", "frobenious"])
    assert refused.exit_code == 2
    said = " ".join(refused.output.replace("│", " ").split())
    assert ", ".join(map(repr, VARIANTS)) in said


def test_presets_are_about_variants_that_there_are():
    for preset in PRESETS.values():
        assert set(preset.variants) <= set(VARIANTS)


def test_products():
    assert products(VARIANTS) == set(PRODUCTS)
    assert products([DEFAULT_VARIANT]) == {"A"}


def test_no_other_file_spells_their_names():
    """A name is elsewhere used as a default, or in a sentence; several only in presets.

    Those of parts are the parts' own (`choices.PARTS`).
    """
    name = re.compile(rf"[\"']({'|'.join(OF_BLOCKS)})[\"']")
    spelled = {
        path.name: set(name.findall(path.read_text(encoding="utf-8")))
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk")]
    }
    several = {file for file, names in spelled.items() if len(names) > 1}
    assert several <= {"variants.py", "presets.py"}
    assert len(spelled["variants.py"]) == len(OF_BLOCKS)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_made_of_its_diagonal_and_its_scale(name):
    """Against NumPy's own functions, to the bit: tables must not change with how it is written."""
    random = np.random.default_rng(0)
    diagonal, s = random.normal(size=(2, 3, 4, 7))
    s = np.sort(abs(s))[..., ::-1]
    deviation = {
        variants._signed: diagonal - s,
        variants._unsigned: np.abs(diagonal) - s,
        variants._none: np.zeros_like(s),
    }[VARIANTS[name].diagonal]
    scale = {
        variants._frobenius: np.sqrt(np.cumsum(s**2, axis=-1)),
        variants._trace: np.cumsum(s, axis=-1),
    }[VARIANTS[name].scale]
    np.testing.assert_array_equal(VARIANTS[name].diagonal(diagonal, s), deviation)
    np.testing.assert_array_equal(VARIANTS[name].scale(s), scale)


def test_the_names_are_light():
    code = (
        "import sys, blockcoupling.config.variants;"
        "print(sorted({'numpy', 'pydantic', 'torch'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
