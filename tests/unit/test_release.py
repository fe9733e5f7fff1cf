"""The wheel and the source distribution have what a user needs, and agree on the version."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NEEDED = {
    "blockcoupling/py.typed",
    "blockcoupling/demo/Snakefile",
    "blockcoupling/demo/workflow/Snakefile",
    "blockcoupling/demo/config/config.yaml",
    "blockcoupling/demo/profiles/slurm/config.yaml",
    "blockcoupling/report/templates/report.html.j2",
    "blockcoupling/sources/data/handwritten.jsonl",
    "snakemake_logger_plugin_blockcoupling/__init__.py",
}
BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, built from a copy: building writes into the sources."""
    copy = tmp_path_factory.mktemp("release")
    for name in ("src", "workflow", "config", "profiles"):
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


@pytest.mark.slow
def test_wheel_has_everything_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"blockcoupling-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    modules = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.py")}
    assert names >= NEEDED | modules
    tops = {name.split("/")[0] for name in names}
    own = {"blockcoupling", "snakemake_logger_plugin_blockcoupling"}
    assert tops == own | {f"blockcoupling-{VERSION}.dist-info"}


@pytest.mark.slow
def test_source_distribution_has_everything(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert names >= {f"src/{name}" for name in NEEDED} | {"pyproject.toml", "README.md", "LICENSE"}


def test_version_is_the_same_everywhere():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", cited, re.MULTILINE)[1] == VERSION
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == VERSION
