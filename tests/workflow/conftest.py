"""Studies of seconds for the tests of the workflow: one configured, one finished, copies of it."""

import shutil
from pathlib import Path

import pytest
from running import Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path)
    place.configure()
    return place


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The study of seconds, run to its end; tests only look at it."""
    place = Workplace(tmp_path_factory.mktemp("finished"))
    place.configure()
    run = place.snakemake()
    assert run.status == 0, run.said
    return place


@pytest.fixture
def copy(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished study, to go on from."""
    shutil.copytree(finished.directory, tmp_path / "copy", symlinks=True)
    return Workplace(tmp_path / "copy")
