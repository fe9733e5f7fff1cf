"""The documentation site, as `make docs` builds it, in a real Chromium whose network is off."""

import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "docs"


@pytest.mark.browser
@pytest.mark.skipif(not (SITE / "index.html").exists(), reason="`make docs` has not run")
def test_search_and_pages_need_no_network(browser):
    browser.execute_cdp_cmd("Network.enable", {})
    off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", off)
    browser.get_log("performance")
    try:
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
        events = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    finally:
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**off, "offline": False})
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = {urlsplit(event["params"]["request"]["url"]).scheme for event in sent}
    assert asked <= {"file", "data"}


def test_links_elsewhere_are_whole():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((\w+:[^)]*)\)", page.read_text(encoding="utf-8")):
            parts = urlsplit(link)
            assert parts.scheme == "https", f"{page}: {link}"
            assert "." in parts.netloc, f"{page}: {link}"
            assert not re.search(r"\s", link), f"{page}: {link}"
