"""The payloads by key: what a server answers with, and what an exported file contains.

A key is a path: the name of a payload, the number of a catalog, and what the payload is of, e.g.
`matrices/0/pythia-70m/step512/arc`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from blockcoupling.errors import UserError
from blockcoupling.explore.course import course
from blockcoupling.explore.damage import damage
from blockcoupling.explore.index import index
from blockcoupling.explore.matrices import matrices
from blockcoupling.explore.pairs import pair, products
from blockcoupling.explore.points import points
from blockcoupling.explore.prompts import prompts
from blockcoupling.explore.tokens import tokens

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

PAYLOADS: Mapping[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each
    for each in (matrices, pair, products, prompts, tokens, course, points, damage)
}
"""Functions of a catalog and of texts, the rest of the key."""

INDEX = "index"


def payload(catalogs: Sequence[Catalog], titles: Sequence[str], key: str) -> dict[str, Any]:
    """Return the payload of a key.

    Raises:
        UserError: no such payload, or it cannot be read; the message is one sentence.
    """
    if key == INDEX:
        return index(catalogs, titles)
    name, *rest = key.split("/")
    function = PAYLOADS.get(name)
    wanted = 0 if function is None else len(signature(function).parameters)
    if function is None or len(rest) != wanted or not rest[0].isdecimal():
        raise UserError(f"the explorer has no payload {key!r}")
    if int(rest[0]) >= len(catalogs):
        raise UserError(f"there is no catalog number {rest[0]}: {len(catalogs)} are open")
    return function(catalogs[int(rest[0])], *rest[1:])


def title_of(catalog: Catalog, path: str) -> str:
    """Return what people call a catalog: the name of its study, or else of its file."""
    return str(catalog.metadata.get("study") or PurePosixPath(path).stem)
