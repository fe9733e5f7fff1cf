"""Drawing figures of the table: one, or all of a study in one process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockcoupling.config.choices import Modality
from blockcoupling.errors import UserError
from blockcoupling.figures.table import FIGURES, figures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog

FORMATS: Mapping[str, dict[str, Any]] = {
    # Without dates and program versions, the same data make the same bytes.
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {"dpi": 300, "metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
    "svg": {"dpi": 300, "metadata": {"Creator": None, "Date": None}},
}
"""The formats that a figure can be written in, with the arguments of `Figure.savefig`."""


def draw(name: str, catalog: Catalog, modality: Modality | None = None, **options: Any) -> Figure:
    """Draw one figure.

    Args:
        name: one of :data:`FIGURES`.
        catalog: has the entries that the figure reads; `k` and `variant` default to those of the
            study's statistics.
        modality: kind of models; defaults to the one that the study has, or to language models if
            it has both.
        options: `k` and `variant`, if the figure shows one of each.

    Returns:
        The figure. If the study has nothing to show in it, a figure that says why.

    Raises:
        UserError: unknown figure, or entries missing from the catalog.

    """
    from blockcoupling.figures.data import NothingToShow
    from blockcoupling.figures.style import settle, statement

    if name not in FIGURES:
        raise UserError(f"unknown figure {name!r}; figures: {', '.join(FIGURES)}")
    try:
        return _drawn(name, _only(catalog, modality), options)
    except NothingToShow as reason:
        figure = statement(str(reason))
        settle(figure)
        return figure


def draw_all(
    catalog: Catalog,
    out: str | Path,
    modality: Modality | None = None,
    formats: Iterable[str] = ("png", "pdf"),
) -> dict[str, list[Path]]:
    """Draw every figure that a study has something to show in, and write it to `out/NAME.FORMAT`.

    Files that an earlier call left there, of figures with nothing to show now or in other formats,
    are removed.

    Args:
        catalog: as in :func:`draw`.
        out: directory; created if missing.
        modality: as in :func:`draw`.
        formats: of :data:`FORMATS`.

    Returns:
        The files written, by the name of the figure, in the order of the table.

    Raises:
        UserError: as :func:`draw` and :func:`save`.

    """
    from blockcoupling.catalog.modality import MODALITIES, modalities
    from blockcoupling.figures.data import NothingToShow

    folder, wanted = Path(out), list(formats)
    folder.mkdir(parents=True, exist_ok=True)
    taken: Modality = modality or (modalities(catalog) or MODALITIES)[0]
    own = _only(catalog, taken)
    written: dict[str, list[Path]] = {}
    for name in figures_of(taken):
        try:
            written[name] = save(_drawn(name, own), folder / name, wanted)
        except NothingToShow:
            written[name] = []
        for each in FORMATS:
            if (old := folder / f"{name}.{each}") not in written[name]:
                old.unlink(missing_ok=True)
    return {name: paths for name, paths in written.items() if paths}


def save(figure: Figure, stem: str | Path, formats: Iterable[str] = ("png", "pdf")) -> list[Path]:
    """Write a figure to `stem.png` and so on; the same figure always makes the same bytes.

    Raises:
        UserError: a format other than png, pdf and svg.

    """
    from blockcoupling.atomic import replacing
    from blockcoupling.figures.style import styled

    wanted = list(formats)
    if unknown := [each for each in wanted if each not in FORMATS]:
        raise UserError(f"unknown format {', '.join(unknown)}; formats: {', '.join(FORMATS)}")
    # It logs every glyph that it embeds in a PDF.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    paths = [Path(f"{stem}.{each}") for each in wanted]
    for path, each in zip(paths, wanted, strict=True):
        with replacing(path) as fresh:
            styled(figure.savefig)(fresh, format=each, **FORMATS[each])
    return paths


def _only(catalog: Catalog, modality: Modality | None) -> Catalog:
    """Return the entries about models of one modality."""
    from blockcoupling.catalog.modality import modalities, of_modality

    taken = modalities(catalog)
    if modality is None and len(taken) < 2:
        return catalog
    return of_modality(catalog, modality or taken[0])


def _drawn(name: str, catalog: Catalog, options: Mapping[str, Any] | None = None) -> Figure:
    from blockcoupling.figures.style import settle

    row, content = FIGURES[name], catalog
    asked = {**row.select, **(options or {})}
    if row.read:
        content, asked = _function(row.read)(catalog, **asked), {}
    figure: Figure = _function(row.draw)(content, **row.parameters, **asked)
    settle(figure)
    return figure


def _function(place: str) -> Callable[..., Any]:
    module, name = place.split(":")
    return getattr(import_module(module), name)
