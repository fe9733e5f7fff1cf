"""What several test modules share."""

import pytest
from synthetic_study import write_study

from blockcoupling.catalog import Catalog


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Return the catalog of a synthetic study; tests only read from it."""
    return write_study(tmp_path_factory.mktemp("study"))
