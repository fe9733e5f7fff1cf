"""What several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from synthetic_study import analyse, write_study

from blockcoupling.catalog import Catalog
from blockcoupling.lab import join

join()  # as the command line does

# The first example imports what the others find imported, while other tests run.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _no_traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remember digests of files here, not in the home directory of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKCOUPLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="session")
def study(_root: Path) -> Catalog:
    """Return the catalog of a synthetic study; tests only read from it."""
    return write_study(_root)


@pytest.fixture(scope="session")
def analysed(_root: Path, study: Catalog) -> Catalog:
    """Return the same study with its statistics."""
    return analyse(_root, study)
