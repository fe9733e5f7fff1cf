"""The catalog: every artifact of a study, found by its facets and read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.readers import datatypes
from intake.readers.entry import Catalog as IntakeCatalog
from intake.readers.entry import DataDescription, ReaderDescription

from blockcoupling.catalog.artifact import Artifact
from blockcoupling.catalog.formats import FORMATS, described
from blockcoupling.catalog.place import HERE, Place, ending, problem
from blockcoupling.catalog.plain import Facet, relative
from blockcoupling.catalog.studies import STUDY, demand_comparable
from blockcoupling.errors import UserError
from blockcoupling.wording import did_you_mean

if TYPE_CHECKING:
    import pandas as pd


class Catalog(IntakeCatalog):
    """An Intake catalog that can be searched by facet.

    ``catalog[name]`` is an Intake reader and ``catalog[name].read()`` the artifact: a lazy
    :class:`xarray.Dataset` for a Zarr store, a DataFrame for Parquet and JSON lines, a dict for
    JSON, text for HTML and bytes for an image. Iteration goes over the names, sorted.

    A catalog file is read as data: name, metadata and path of each entry. This
    package creates the readers itself; readers named in the file are ignored.
    """

    _allow_outside: bool
    _where: Mapping[str, tuple[Place, Any]]
    """Url of each entry, and the place that it is relative to."""
    _whole: Mapping[str, ReaderDescription]
    """All entries, of a catalog that is the result of a search."""

    @classmethod
    def of(
        cls,
        entries: Mapping[str, tuple[Mapping[str, Any], Any]],
        metadata: Mapping[str, Any],
        path: str,
        *,
        allow_outside: bool,
    ) -> Catalog:
        """Make a catalog of entries.

        Entries whose path is not allowed are listed; reading them is an error.

        Args:
            entries: metadata (with a kind) and url of each, by name.
            metadata: of the catalog.
            path: of the catalog file.
            allow_outside: whether artifacts may be outside of the study's directory.
        """
        place = Place.around(path)
        placed = {name: (about, place, url) for name, (about, url) in entries.items()}
        catalog = cls._of(placed, metadata, allow_outside)
        catalog.user_parameters.update(
            CATALOG_PATH=path, CATALOG_DIR=place.directory, STORAGE_OPTIONS={}
        )
        return catalog

    @classmethod
    def of_several(
        cls,
        entries: Mapping[str, tuple[str | None, tuple[Catalog, str]]],
        *,
        allow_outside: bool,
    ) -> Catalog:
        """Make a catalog of the entries of several catalogs.

        Args:
            entries: study, and catalog and name in it, by the name that each gets.
            allow_outside: as for :meth:`of`.
        """
        placed = {}
        for name, (study, (source, own)) in entries.items():
            facet = {STUDY: study} if study else {}
            placed[name] = (source.entries[own].metadata | facet, *source._where[own])
        return cls._of(placed, {}, allow_outside)

    @classmethod
    def _of(
        cls,
        entries: Mapping[str, tuple[Mapping[str, Any], Place, Any]],
        metadata: Mapping[str, Any],
        allow_outside: bool,
    ) -> Catalog:
        catalog = cls(metadata=dict(metadata))
        for name, (about, _, url) in entries.items():
            reader, kwargs, result = "builtins:NotImplementedError", {}, None
            if problem(url) is None:
                data, own = described(ending(url), str(about["kind"]), key_of(name), url)
                file = DataDescription(data["datatype"], data["kwargs"])
                file._tok = key_of(name)
                catalog.data[file._tok] = file
                reader, kwargs, result = own["reader"], own["kwargs"], own["output_instance"]
            entry = ReaderDescription(reader, kwargs, metadata=about, output_instance=result)
            entry._tok = name
            catalog.entries[name] = entry
            catalog.aliases[name] = name
        catalog._allow_outside = allow_outside
        catalog._where = {name: (place, url) for name, (_, place, url) in entries.items()}
        catalog._whole = catalog.entries
        return catalog

    def search(self, **facets: Facet | Iterable[Facet]) -> Catalog:
        """Return the entries that have all the given facets.

        Args:
            facets: ``model="pythia-6.9b"``, ``kind=["coupling", "trajectory"]``: a list allows each
                of its values. Values are compared as text, so ``step=64`` finds ``"64"`` too.

        Returns:
            A catalog again, empty when nothing matches.

        Raises:
            UserError: a facet that no entry of this catalog has; the message lists those there are.
        """
        # A search in an empty result must still know which facets exist.
        every = [each.metadata for each in self._whole.values()]
        if unknown := [key for key in facets if not any(_has(each, key) for each in every)]:
            known = sorted(_facets(every))
            hints = ", ".join(
                f"{key!r}{did_you_mean(key, known, list_all=False)}" for key in unknown
            )
            raise UserError(f"unknown facet {hints}; facets: {', '.join(known) or 'none'}")
        wanted = {
            key: {str(v) for v in ([value] if isinstance(value, Facet) else value)}
            for key, value in facets.items()
        }
        return self.only(
            name
            for name, each in self.entries.items()
            if all(_has(each.metadata, k) and str(each.metadata[k]) in v for k, v in wanted.items())
        )

    def only(self, names: Iterable[str]) -> Catalog:
        """Return a catalog of some of the entries, by name."""
        wanted = set(names)
        found = {name: each for name, each in self.entries.items() if name in wanted}
        chosen = type(self)(
            entries=found,
            aliases={name: name for name in found},
            data=self.data,
            user_parameters=self.user_parameters,
            metadata=self.metadata,
        )
        chosen._allow_outside = self._allow_outside
        chosen._where, chosen._whole = self._where, self._whole
        return chosen

    def facets(self) -> dict[str, list[Facet]]:
        """Return the facets of this catalog with the values that occur, both sorted."""
        values = _facets(each.metadata for each in self.entries.values())
        return {key: sorted(values[key], key=str) for key in sorted(values)}

    def one(self, **facets: Facet | Iterable[Facet]) -> Artifact:
        """Return the reader of the only entry that has the given facets.

        Raises:
            UserError: no entry has them, or several do.
        """
        found = self.search(**facets)
        if len(found) != 1:
            asked = ", ".join(f"{key}={value!r}" for key, value in facets.items())
            names = ", ".join(found) or "none"
            raise UserError(f"expected one entry with {asked}, found {len(found)}: {names}")
        return found[next(iter(found))]

    def frame(self, **options: Any) -> pd.DataFrame:
        """Read all entries and stack them into one table.

        Parquet tables and JSON lines are stacked; a JSON record is a table of one row.

        Args:
            options: handed to the Parquet reader, e.g. ``columns=[…]`` or
                ``filters=[("k", "==", 10)]``, so that only what is asked for is loaded.

        Raises:
            UserError: there are no entries, some are no tables, cannot be read, or are of several
                studies that cannot be compared.
        """
        import pandas as pd

        demand_comparable(_metadata(self.entries), _metadata(self._whole))
        if not len(self):
            raise UserError("nothing to read: no entry of the catalog matches the search")
        tables = []
        for name in self:
            reader = self[name]
            content = reader.read(**(options if reader.suffix == ".parquet" else {}))
            if isinstance(content, dict):
                content = pd.DataFrame([content])
            if not isinstance(content, pd.DataFrame):
                raise UserError(f"{name} is not a table; restrict the search to tables, by `kind`")
            tables.append(content)
        return pd.concat(tables, ignore_index=True)

    def path(self, name: str) -> Path:
        """Return where the artifact of an entry lies on the local disk.

        Raises:
            UserError: it lies elsewhere, or where it may not.
        """
        where = self[name].where
        if "://" in where:
            raise UserError(f"{where} is not on the local disk")
        return Path(where)

    def at(self, path: str | Path) -> str | None:
        """Return the name of the entry whose artifact lies at a local path; None: of none."""
        urls = {
            place: HERE + relative(Path(path), Path(place.directory))
            for place in self._places
            if place.local
        }
        found = ((name, *self._where[name]) for name in self.entries)
        return next((name for name, place, url in found if urls.get(place) == url), None)

    def allows(self, path: str | Path) -> bool:
        """Whether something at a local path may be read for this catalog."""
        where = os.path.realpath(path)
        return any(
            place.local and (self._allow_outside or place.holds(where)) for place in self._places
        )

    def study_directories(self) -> list[str]:
        """Return the directories of its studies, by their own names and with links resolved."""
        return [each for place in self._places for each in place.study_directories()]

    @property
    def _places(self) -> set[Place]:
        return {place for place, _ in self._where.values()}

    def __getitem__(self, name: str) -> Artifact:
        """Return the reader of an entry.

        Raises:
            KeyError: there is none of this name.
            UserError: it asks for what is not allowed.
        """
        if name not in self.entries:
            raise KeyError(f"no entry {name!r}{did_you_mean(name, self.entries, list_all=False)}")
        place, url = self._where[name]
        try:
            where = place.find(url, allow_outside=self._allow_outside)
        except UserError as reason:
            raise UserError(f"{name} is not read: {reason}") from None
        about, chosen = self.entries[name].metadata, FORMATS[Path(where).suffix]
        data = getattr(datatypes, chosen.datatype)(url=where, metadata=about)
        return Artifact(data=data, name=name, metadata=about, output_instance=chosen.result)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        kinds = Counter(str(each.metadata["kind"]) for each in self.entries.values())
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return f"<Catalog: {len(self)} entries{': ' if listed else ''}{listed}>"


def key_of(name: str) -> str:
    """Return what a catalog file calls the file of an entry."""
    return f"file of {name}"


def _metadata(entries: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: each.metadata for name, each in entries.items()}


def _has(metadata: Mapping[str, Any], key: str) -> bool:
    return key in metadata and isinstance(metadata[key], (str, int, float))


def _facets(every: Iterable[Mapping[str, Any]]) -> dict[str, set[Facet]]:
    values: dict[str, set[Facet]] = defaultdict(set)
    for metadata in every:
        for key in metadata.keys() - {"digest"}:  # in which all entries differ
            if _has(metadata, key):
                values[key].add(metadata[key])
    return values
