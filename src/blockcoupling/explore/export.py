"""The explorer as one file that fetches nothing: the page with its payloads inside.

The file stays below :data:`LIMIT`. What matters most goes in first: tables, and the matrices of
every checkpoint for the study's variant and K; then all variants and K of each model's last
checkpoint, pairs of blocks, the most coupled first, and all variants and K of the other
checkpoints; always the largest models first. The page says what was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blockcoupling.atomic import replacing
from blockcoupling.config.variants import PRODUCTS, VARIANTS
from blockcoupling.explore.index import index
from blockcoupling.explore.packing import as_json, quantized
from blockcoupling.explore.page import compressed, exported
from blockcoupling.explore.pairs import at_rows, of_rows, products_of, shown, store
from blockcoupling.explore.payloads import INDEX, payload
from blockcoupling.wording import size

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

LIMIT = 9_500_000
"""Bytes of a file, at most."""

_PAIRS = 1500
"""Pairs of blocks in a file, at most."""
_PROMPTS = 24
"""Prompts of a pair of blocks, at most: the first ones."""
_MANY = 1_000_000
"""Entries of all matrices above which only the study's K, and its variant at other K, are kept."""
_OF_MEASUREMENT = {"miscoupling": "matrices", "tokenwise": "tokens", "damage": "damage"}
"""Kind of entry → its payload."""


class Written(NamedTuple):
    """An exported file: its size in bytes, and a sentence about what it leaves out, or none."""

    bytes: int
    left_out: str


class _Measurement(NamedTuple):
    catalog: int
    model: dict[str, Any]
    checkpoint: str
    dataset: str
    last: bool
    """Whether it is of the model's last checkpoint."""

    @property
    def path(self) -> str:
        return f"{self.catalog}/{self.model['model']}/{self.checkpoint}/{self.dataset}"


class _Contents:
    """Payloads that fit into a file; those that do not are counted by name."""

    def __init__(self, room: int) -> None:
        self.parts: dict[str, str] = {}
        self.left_out: dict[str, int] = {}
        self.thin = 0
        self.room = room

    def add(self, key: str, content: dict[str, Any]) -> None:
        """Add a payload, or put a fuller one in its place; what does not fit is counted."""
        text = compressed(as_json(content, quantized))
        cost = len(text) - len(self.parts[key]) if key in self.parts else len(text) + len(key) + 60
        if cost <= self.room:
            self.parts[key] = text
            self.room -= cost
        elif key in self.parts:
            self.thin += 1
        else:
            name = key.split("/", maxsplit=1)[0]
            self.left_out[name] = self.left_out.get(name, 0) + 1


def write_export(
    catalogs: Sequence[Catalog],
    titles: Sequence[str],
    out: Path,
    *,
    title: str,
    limit: int = LIMIT,
) -> Written:
    """Write the page over some catalogs as one file.

    Args:
        catalogs: in the order in which they were named.
        titles: of each, for people.
        out: the HTML file.
        title: heading of the page.
        limit: bytes of the file, at most; what matters less is left out.

    Raises:
        UserError: a catalog has nothing to show, or an entry cannot be read.
    """
    text, said = _written(catalogs, titles, title, limit)
    with replacing(out) as fresh:
        fresh.write_text(text, encoding="utf-8")
    return Written(len(text.encode()), said)


def _written(
    catalogs: Sequence[Catalog], titles: Sequence[str], title: str, limit: int
) -> tuple[str, str]:
    """Return the file's text, and what it leaves out."""
    about = index(catalogs, titles)
    opening = compressed(as_json(about, quantized))
    empty = len(exported(title, {INDEX: opening}).encode())
    contents = _Contents(limit - empty - 2000)
    for key in _tables(catalogs, about):
        contents.add(key, payload(catalogs, titles, key))
    measurements = _measurements(about, "miscoupling")
    found = {each: payload(catalogs, titles, f"matrices/{each.path}") for each in measurements}
    thinned = sum(each["m"].size for each in found.values()) > _MANY

    def add_matrices(measured: Iterable[_Measurement], alone: bool) -> None:
        for each in measured:
            chosen, whole = about["catalogs"][each.catalog], found[each]
            kept = _thinned(whole, chosen, alone=alone) if alone or thinned else whole
            contents.add(f"matrices/{each.path}", kept)

    add_matrices(measurements, alone=True)
    for kind in ("tokenwise", "damage"):
        for each in _measurements(about, kind):
            key = f"{_OF_MEASUREMENT[kind]}/{each.path}"
            contents.add(key, payload(catalogs, titles, key))
    # Where matrices are many, those of other checkpoints come after the pairs of blocks.
    early = [each for each in measurements if each.last or not thinned]
    add_matrices(early, alone=False)
    stored = {each: found[each] for each in _measurements(about, "svd") if each in found}
    for key, content in _pairs(catalogs, about, stored):
        contents.add(key, content)
    add_matrices((each for each in measurements if each not in early), alone=False)
    said = _sentence(contents, thinned)
    _keep_only(about, contents.parts)
    about["left_out"] = said
    parts = {INDEX: compressed(as_json(about, quantized)), **contents.parts}
    return exported(title, parts), said


def _tables(catalogs: Sequence[Catalog], about: dict[str, Any]) -> Iterator[str]:
    for number, catalog in enumerate(catalogs):
        yield f"points/{number}"
        for entry in catalog.entries.values():
            if entry.metadata["kind"] == "prompts":
                yield f"prompts/{number}/{entry.metadata['dataset']}"
    for model in about["models"]:
        if "coupling" in model["has"]:
            yield f"course/{model['catalog']}/{model['model']}"


def _measurements(about: dict[str, Any], kind: str) -> list[_Measurement]:
    """Return the measurements with a kind of entry: last checkpoints, first ones, then others.

    Of each, those of the largest models come first.
    """
    found = []
    for model in reversed(about["models"]):
        has = model["has"].get(kind, {})
        order = [each["checkpoint"] for each in model["checkpoints"] if each["checkpoint"] in has]
        for name in order:
            last = name == order[-1]
            found += [
                _Measurement(model["catalog"], _Known(model), name, dataset, last)
                for dataset in has[name]
            ]
    firsts = {id(each.model): each.checkpoint for each in reversed(found)}
    return sorted(found, key=lambda one: (not one.last, one.checkpoint != firsts[id(one.model)]))


class _Known(dict[str, Any]):
    """A model, equal to itself only, so that it can be part of a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((self["catalog"], self["model"]))


def _thinned(content: dict[str, Any], chosen: dict[str, Any], *, alone: bool) -> dict[str, Any]:
    """Return matrices at the study's K, and at other K of its variant; the others missing.

    With `alone`, those of the study's variant and K, without overlaps.
    """
    at = _chosen(content, chosen)
    variant = (np.arange(len(content["variants"])) == at[0])[:, None]
    k = np.arange(len(content["ks"])) == at[1]
    kept = (variant & k if alone else variant | k)[..., None, None]

    def of_kept(these: dict[str, Any]) -> dict[str, Any]:
        return {
            "m": np.where(kept, these["m"], np.nan),
            "se": np.where(kept, np.round(these["se"], 4), np.nan),
        }

    apart = {"by_tokens": of_kept(content["by_tokens"])} if "by_tokens" in content else {}
    return {
        **content,
        **of_kept(content),
        **apart,
        "overlaps": {
            name: np.where(k[:, None, None] & (not alone), values, np.nan)
            for name, values in content["overlaps"].items()
        },
    }


def _pairs(
    catalogs: Sequence[Catalog],
    about: dict[str, Any],
    found: dict[_Measurement, dict[str, Any]],
) -> list[tuple[str, dict[str, Any]]]:
    """Return the payloads of pairs of blocks, the most coupled of every measurement first."""
    each_has = max(1, _PAIRS // max(1, len(found)))
    ranked: list[tuple[int, int, str, dict[str, Any]]] = []
    for order, (each, content) in enumerate(found.items()):
        at = (each.model["model"], each.checkpoint, each.dataset)
        ds = store(catalogs[each.catalog], *at)
        ks = [k for k in content["ks"] if k <= ds.sizes["k"]]
        variants = [name for name in content["variants"] if VARIANTS[name].product in ds]
        if "A" not in ds or not ks or not variants:
            continue
        values = {variant.of_part("S") for variant in VARIANTS.values()}
        kept = ds[[name for name in (*sorted(values), *PRODUCTS) if name in ds]]
        kept = kept.isel(prompt=slice(_PROMPTS))
        m, count = at_rows(kept, ks, variants), ds.sizes["prompt"]
        same = {**of_rows(kept), "variants": variants, "ks": ks, "prompts": count}
        first = shown(ds).isel(prompt=0, pair=0).load()
        strongest = _strongest(content, about["catalogs"][each.catalog])
        for rank, (i, j) in enumerate(strongest[:each_has]):
            end = f"{each.path}/{i + 1}/{j + 1}"
            ranked += [
                (rank, order, f"pair/{end}", {**same, "m": m[..., i, j]}),
                (rank, order, f"products/{end}/0", products_of(first, i, j)),
            ]
    ranked.sort(key=lambda each: each[:2])
    return [(key, content) for _, _, key, content in ranked]


def _strongest(content: dict[str, Any], chosen: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the pairs of different blocks, the smallest m first."""
    m = content["m"][_chosen(content, chosen)]
    order = np.argsort(m, axis=None, kind="stable")
    places = zip(*np.unravel_index(order, m.shape), strict=True)
    return [(int(i), int(j)) for i, j in places if i != j and np.isfinite(m[i, j])]


def _chosen(content: dict[str, Any], chosen: dict[str, Any]) -> tuple[int, int]:
    """Return the places of the study's variant and K, or of the first, and of the last up to 10."""
    variants, ks = content["variants"], content["ks"]
    v = variants.index(chosen["variant"]) if chosen["variant"] in variants else 0
    if chosen["k"] in ks:
        return v, ks.index(chosen["k"])
    return v, max([n for n, k in enumerate(ks) if k <= 10], default=0)


def _keep_only(about: dict[str, Any], parts: dict[str, str]) -> None:
    """Take out of the index what the file does not contain."""
    for model in about["models"]:
        for kind, name in (*_OF_MEASUREMENT.items(), ("coupling", "course")):
            has = model["has"].get(kind, {})
            if name == "course":
                kept = has if f"course/{model['catalog']}/{model['model']}" in parts else {}
            else:
                place = f"{name}/{model['catalog']}/{model['model']}"
                kept = {
                    checkpoint: own
                    for checkpoint, datasets in has.items()
                    if (
                        own := [
                            each for each in datasets if f"{place}/{checkpoint}/{each}" in parts
                        ]
                    )
                }
            model["has"].pop(kind, None)
            if kept:
                model["has"][kind] = kept


def _sentence(contents: _Contents, thinned: bool) -> str:
    """Return what the file leaves out, as a sentence; empty if nothing."""
    said = []
    if thinned:
        said.append("matrices of other variants at other K than the study's")
    if contents.thin:
        said.append(f"other variants, other K and overlaps in {contents.thin} matrices")
    if contents.left_out:
        counted = (f"{count} of {name}" for name, count in sorted(contents.left_out.items()))
        said.append(f"what did not fit into {size(LIMIT)} ({', '.join(counted)})")
    if not said:
        return ""
    return f"It leaves out {'; '.join(said)}. `blockcoupling explore` shows everything."
