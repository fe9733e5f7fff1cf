"""Refuses tokens of the hub in a configuration, whose contents are written into results.

A study's settings go into records, entries of the catalog and Snakemake's metadata, which are
shared with everyone who reads the results.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "(hidden)"
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
"""What a token of the Hugging Face hub looks like: `hf_`, and 34 letters and digits today."""


def without_tokens(text: str) -> str:
    """A text with `(hidden)` in place of every token of the hub."""
    return TOKEN.sub(HIDDEN, text)


def tokens_refused(data: Mapping[str, Any]) -> list[str]:
    """A sentence for every value or key of a configuration that looks like a token."""
    return [
        f"{without_tokens(place)}: looks like a token of the hub, and a "
        "configuration is written into results; remove it, and set HF_TOKEN or run "
        "`hf auth login` (revoke a token that was shared)"
        for place in _places(data, "")
    ]


def _places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, str) and TOKEN.search(value):
        yield place
    elif isinstance(value, Mapping):
        for key, each in value.items():
            inner = f"{place}.{key}".removeprefix(".")
            if TOKEN.search(str(key)):
                yield inner
            yield from _places(each, inner)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _places(each, f"{place}[{number}]")
