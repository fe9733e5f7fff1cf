"""What several test modules share."""

from pathlib import Path

import pytest
from synthetic_study import analyse, write_study

from blockcoupling.catalog import Catalog


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
