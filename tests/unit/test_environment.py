"""pyproject.toml, environment.yml, requirements.lock and what the code imports are consistent."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from blockcoupling.errors import EXTRAS, UserError, explained_imports

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
IN_CONDA = ("study", "train", "slurm", "quantization")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEVELOPMENT = {"test", "lint"}
INSTALLED = packages_distributions()
# Imported by name where several distributions provide it, or part of another requirement.
DISTRIBUTION = {"google": "protobuf", "pydantic_core": "pydantic"}


def named(lines: list[str]) -> dict[str, Requirement]:
    return {normal(Requirement(line).name): Requirement(line) for line in lines}


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def declared() -> dict[str, dict[str, Requirement]]:
    """Requirements by extra; the key "" has those of the package itself."""
    extras = PROJECT["optional-dependencies"]
    return {"": named(PROJECT["dependencies"]), **{e: named(v) for e, v in extras.items()}}


def of_conda() -> dict[str, str]:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pairs = (re.fullmatch(r"([\w.-]+?)([<>=].*)?", line) for line in lines)
    return {match[1]: (match[2] or "") for match in pairs if match}


def imports(tree: ast.AST) -> set[str]:
    """The top-level names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def distributions(module: str) -> set[str]:
    if module in DISTRIBUTION:
        return {DISTRIBUTION[module]}
    return set(map(normal, INSTALLED.get(module, [module])))


def test_conda_environment_has_the_dependencies_of_the_package() -> None:
    requirements = declared()
    wanted = {"python": PROJECT["requires-python"], "pip": ""}
    for extra in ("", *IN_CONDA):
        for requirement in requirements[extra].values():
            name = CONDA_NAMES.get(requirement.name, requirement.name)
            wanted[name] = str(requirement.specifier)
    assert of_conda() == wanted


def test_lock_pins_everything_that_pyproject_asks_for() -> None:
    locked = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert [s.operator for s in requirement.specifier] == ["=="], line
            locked[normal(requirement.name)] = next(iter(requirement.specifier)).version
    for requirements in declared().values():
        for name, requirement in requirements.items():
            version = locked[name]
            assert requirement.specifier.contains(version), f"{requirement}, but {version} locked"


def test_every_import_is_declared_and_every_requirement_is_used() -> None:
    requirements = declared()
    known = {name for extra in requirements.keys() - DEVELOPMENT for name in requirements[extra]}
    used: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        modules = imports(ast.parse(file.read_text(encoding="utf-8")))
        for module in modules - sys.stdlib_module_names - {"blockcoupling"}:
            found = distributions(module)
            assert found & known, f"{file}: {module} is not a dependency of pyproject.toml"
            used |= found
    # Loaded by name: by Snakemake, by Dask, and by transformers' tokenizers.
    by_name = {"snakemake-executor-plugin-slurm", "bokeh", "protobuf", "sentencepiece"}
    assert known - by_name <= used


def test_the_extra_of_a_module_is_the_one_that_declares_it() -> None:
    requirements = declared()
    for module, extra in EXTRAS.items():
        assert distributions(module) & requirements[extra].keys(), f"{module}: {extra}"
    covered = {name for module in EXTRAS for name in distributions(module)}
    for extra in requirements.keys() - DEVELOPMENT - {""}:
        assert requirements[extra].keys() <= covered, extra


def test_a_missing_extra_is_named() -> None:
    train = r"pip install 'blockcoupling\[train\]'"
    with pytest.raises(UserError, match=train), explained_imports():
        raise ModuleNotFoundError("No module named 'kornia'", name="kornia.augmentation")
    with pytest.raises(ModuleNotFoundError), explained_imports():
        raise ModuleNotFoundError("No module named 'mine'", name="mine")
