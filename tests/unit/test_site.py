"""The documentation site, as `make docs` builds it, in a real Chromium whose network is off."""

import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from offline import offline, requests

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "docs"


@pytest.mark.browser
@pytest.mark.skipif(not (SITE / "index.html").exists(), reason="`make docs` has not run")
def test_search_and_pages_need_no_network(browser):
    with offline(browser):
        requests(browser)  # those of the browser's own first page
        browser.get(f"{(SITE / 'search.html').as_uri()}?q=quantized")
        found = "return [...document.querySelectorAll('.search li a')].map(a => a.href)"
        for _ in range(100):
            if links := browser.execute_script(found):
                break
            time.sleep(0.1)
        assert any("howto" in link for link in links)
        for page in ("index", "worked-example", "generated/keys", "generated/gallery/index"):
            browser.get((SITE / f"{page}.html").as_uri())
            wide = "return document.documentElement.scrollWidth <= window.innerWidth"
            assert browser.execute_script(wide), f"{page} is wider than the window"
        asked = {urlsplit(url).scheme for url in requests(browser)}
    assert asked <= {"file", "data"}


def test_links_elsewhere_are_whole():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((\w+:[^)]*)\)", page.read_text(encoding="utf-8")):
            parts = urlsplit(link)
            assert parts.scheme == "https", f"{page}: {link}"
            assert "." in parts.netloc, f"{page}: {link}"
            assert not re.search(r"\s", link), f"{page}: {link}"
