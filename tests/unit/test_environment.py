"""environment.yml, pyproject.toml and requirements.lock say the same."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def of_pyproject() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        listed += extra
    return {Requirement(line).name.lower(): Requirement(line) for line in listed}


def of_conda() -> dict[str, str]:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pairs = (re.fullmatch(r"([\w.-]+?)([<>=].*)?", line) for line in lines)
    return {match[1]: (match[2] or "") for match in pairs if match}


def test_conda_environment_has_the_dependencies_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"python": project["requires-python"], "pip": ""}
    for line in project["dependencies"]:
        requirement = Requirement(line)
        bound = str(requirement.specifier).replace("==", "=")
        wanted[CONDA_NAMES.get(requirement.name, requirement.name)] = bound
    assert of_conda() == wanted


def test_lock_pins_everything_that_pyproject_asks_for() -> None:
    locked = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert [s.operator for s in requirement.specifier] == ["=="], line
            locked[requirement.name.lower().replace("_", "-")] = next(
                iter(requirement.specifier)
            ).version
    for name, requirement in of_pyproject().items():
        version = locked[name.replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement} but {version} is locked"
    assert locked["torch"] == "2.13.0"
