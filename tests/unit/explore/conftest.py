from itertools import islice
from pathlib import Path

import pytest
from explored_study import write_explored_study
from synthetic_study import IMAGE_MODELS, write_study

from blockcoupling.catalog import Catalog
from blockcoupling.explore.export import write_export


@pytest.fixture(scope="session")
def explored(tmp_path_factory) -> Catalog:
    """Return the catalog of a small study with everything that the explorer shows."""
    return write_explored_study(tmp_path_factory.mktemp("explored"))


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Catalog:
    """Return the catalog of an image model that was measured at two tokens."""
    root = tmp_path_factory.mktemp("images")
    return write_study(root, dict(islice(IMAGE_MODELS.items(), 1)), steps=(0, 600), prompts=3)


@pytest.fixture(scope="session")
def page(explored, tmp_path_factory) -> Path:
    """Return the explorer of that study as one file."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_export([explored], ["small"], file, title="Small")
    return file
