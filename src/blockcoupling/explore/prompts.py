"""Payload of one dataset: what its prompts say, or show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

LONGEST = 400
"""Characters of a prompt that are shown, at most."""
_LARGEST = 12_000
"""Characters of an image's PNG in base64, at most."""


def prompts(catalog: Catalog, dataset: str) -> dict[str, Any]:
    """Return the texts of a dataset's prompts by id, and the images where they are small.

    Raises:
        UserError: the catalog has no such prompts, or they cannot be read.
    """
    table = catalog.one(kind="prompts", dataset=dataset).read()
    ids = [str(each) for each in table["id"]]
    texts = table["text"] if "text" in table else table.get("class", table["id"])
    found: dict[str, Any] = {"texts": dict(zip(ids, map(_shortened, texts), strict=True))}
    if "image" in table:
        found["images"] = {
            name: each
            for name, each in zip(ids, table["image"], strict=True)
            if isinstance(each, str) and 0 < len(each) <= _LARGEST
        }
    return found


def _shortened(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"
