"""The packages drawn in docs/architecture.md are those of the code and its import contract."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import networkx as nx
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GROUND = {"errors", "progress", "atomic", "computing", "digests", "wording"}


@pytest.fixture(scope="module")
def contract() -> list[set[str]]:
    """Return the layers of the import contract, from the top down."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (wings,) = (each for each in settings["contracts"] if each["id"] == "wings")
    return [set(re.split(r"\s*\|\s*", layer)) for layer in wings["layers"]]


def table(heading: str) -> list[list[str]]:
    text = PAGE.split(heading, 1)[1]
    lines = re.search(r"^\|.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_packages_are_listed_in_the_order_of_the_contract(contract):
    listed = [row[0].strip("`") for row in table("From top to bottom")]
    assert listed[-1] == "ground"
    assert [{wing} for wing in listed[:-1]] == contract[: len(listed) - 1]
    assert set().union(*contract[len(listed) - 1 :]) == GROUND


def test_drawing_shows_who_imports_whom():
    code = grimp.build_graph("blockcoupling", exclude_type_checking_imports=True)
    arrows = set()
    for module in code.modules:
        for imported in code.find_modules_directly_imported_by(module):
            ends = [name.split(".")[1:2] for name in (module, imported)]
            if all(ends) and module != "blockcoupling.__main__":
                arrows.add(tuple("ground" if end[0] in GROUND else end[0] for end in ends))
    needed = nx.transitive_reduction(nx.DiGraph([(a, b) for a, b in arrows if a != b])).edges
    drawn = re.findall(r"^    (\w+) --> (\w+)$", PAGE, re.MULTILINE)
    assert sorted(drawn) == sorted(needed), "the drawing should be:\n" + "\n".join(
        f"    {a} --> {b}" for a, b in sorted(needed)
    )


def test_files_that_are_named_exist():
    rows = table("## Where is …?")
    named = [name for _, cell in rows for name in re.findall(r"`([\w/]+\.(?:py|smk))`", cell)]
    assert len(named) >= len(rows)
    missing = [
        name
        for name in named
        if not any((root / name).is_file() for root in (ROOT / "src" / "blockcoupling", ROOT))
    ]
    assert not missing


def test_package_loads_no_torch_until_a_name_is_used():
    code = "import sys, blockcoupling as bc; print('torch' in sys.modules); bc.miscoupling"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_hooks_before_a_commit_run_what_lint_runs():
    assert "entry: make lint" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
