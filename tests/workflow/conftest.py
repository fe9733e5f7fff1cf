"""Studies of seconds for the tests of the workflow: one configured, one finished, copies of it."""

import shutil
from pathlib import Path

import pytest
from gossiping_hub import PASSWORD, TOKEN
from running import Workplace

from blockcoupling.lab import join

join()  # as the command line does


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path)
    place.configure()
    return place


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The study of seconds, run to its end with secrets about; tests only look at it."""
    place = Workplace(tmp_path_factory.mktemp("finished"))
    place.configure()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("https_proxy", f"http://me:{PASSWORD}@localhost:9")
        run = place.snakemake()
    assert run.status == 0, run.said
    (place.directory / "said.txt").write_text(run.said)
    return place


@pytest.fixture
def copy(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished study, to go on from."""
    shutil.copytree(finished.directory, tmp_path / "copy", symlinks=True)
    return Workplace(tmp_path / "copy")
