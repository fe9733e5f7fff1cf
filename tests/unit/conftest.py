"""What several test modules share."""

import os
import shutil
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


_CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator:
    """Start a Chromium of its own, with an empty profile; its network is off.

    It logs what pages complain about, and what they ask for.
    """
    from selenium import webdriver

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        missing = "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
        if os.environ.get("BLOCKCOUPLING_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_CHROMIUM, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()
