"""A browser without a network, and what its pages ask for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def offline(browser) -> Iterator[None]:
    """Turn the browser's network off."""
    browser.execute_cdp_cmd("Network.enable", {})
    off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", off)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**off, "offline": False})


def requests(browser) -> list[str]:
    """Return what was asked for since the last call, over whatever protocol."""
    events = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
