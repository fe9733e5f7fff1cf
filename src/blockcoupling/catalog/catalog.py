"""The catalog: every artifact of a study, found by its facets and read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.readers import datatypes
from intake.readers.entry import Catalog as IntakeCatalog
from intake.readers.entry import DataDescription, ReaderDescription

from blockcoupling.catalog.artifact import Artifact
from blockcoupling.catalog.formats import FORMATS
from blockcoupling.catalog.plain import Facet, relative
from blockcoupling.catalog.trust import (
    HERE,
    Place,
    Refused,
    demand_known_codecs,
    demand_no_links,
    place_of,
    url_of,
)
from blockcoupling.errors import UserError
from blockcoupling.wording import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

_NO_FACETS = frozenset({"digest"})
"""Of which every entry has its own."""


class Catalog(IntakeCatalog):
    """An Intake catalog that can be searched by facet.

    ``catalog[name]`` is an Intake reader and ``catalog[name].read()`` the artifact: a lazy
    :class:`xarray.Dataset` for a Zarr store, a DataFrame for Parquet and JSON lines, a dict for
    JSON, text for HTML and bytes for a picture. Iteration goes over the names, sorted.

    Whatever a catalog file says, it is read by this package's own functions, and no more than
    they: see :mod:`blockcoupling.catalog.trust`.
    """

    _place: Place
    _allow_outside: bool
    _urls: Mapping[str, str]
    _refused: Mapping[str, str]
    _whole: Mapping[str, ReaderDescription]
    """All entries, of a catalog that is the result of a search."""

    @classmethod
    def of(
        cls, content: Mapping[str, Any], path: str, place: Place, *, allow_outside: bool
    ) -> Catalog:
        """Make a catalog of what a catalog file says.

        Entries that ask for what is not allowed are listed; reading them is an error.

        Args:
            content: `entries`, `data` and `metadata` of the file; entries have a kind.
            path: of the file.
            place: where it lies.
            allow_outside: whether artifacts may lie outside of the study's directory.

        """
        catalog = cls(metadata=dict(content["metadata"]))
        urls, refused = {}, {}
        for name, entry in content["entries"].items():
            # Of an entry that is refused, nothing is kept that Intake could be made to run.
            metadata, reader, kwargs = entry["metadata"], "builtins:NotImplementedError", {}
            try:
                key, urls[name] = url_of(entry, content["data"])
                reader, kwargs = entry["reader"], entry["kwargs"]
                data = content["data"][key]
                catalog.data[key] = DataDescription(data["datatype"], data["kwargs"])
                catalog.data[key]._tok = key
            except Refused as reason:
                refused[name] = str(reason)
            described = ReaderDescription(reader, kwargs, metadata=metadata)
            described.output_instance = entry.get("output_instance")
            described._tok = name
            catalog.entries[name] = described
            catalog.aliases[name] = name
        catalog.user_parameters.update(
            CATALOG_PATH=path, CATALOG_DIR=place.directory, STORAGE_OPTIONS={}
        )
        catalog._place, catalog._allow_outside = place, allow_outside
        catalog._urls, catalog._refused = urls, refused
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
        # A search within an empty result still has to tell a facet from a typing mistake.
        every = [each.metadata for each in self._whole.values()]
        if unknown := [key for key in facets if not any(_has(each, key) for each in every)]:
            known = sorted(_facets(every))
            hints = ", ".join(
                f"{key!r}{did_you_mean(key, known, list_all=False)}" for key in unknown
            )
            raise UserError(f"unknown facet {hints}; facets: {', '.join(known) or 'none'}")
        found = dict(self.entries)
        for key, value in facets.items():
            wanted = {str(v) for v in ([value] if isinstance(value, Facet) else value)}
            found = {
                name: each
                for name, each in found.items()
                if _has(each.metadata, key) and str(each.metadata[key]) in wanted
            }
        return self.only(found)

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
        chosen._place, chosen._allow_outside = self._place, self._allow_outside
        chosen._urls, chosen._refused, chosen._whole = self._urls, self._refused, self._whole
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
            UserError: there are no entries, some are no tables, or cannot be read.

        """
        import pandas as pd

        if not len(self):
            raise UserError("nothing to read: no entry of the catalog matches the search")
        tables = []
        for name in self:
            reader = self[name]
            content = reader.read(**(options if reader.suffix == ".parquet" else {}))
            if isinstance(content, dict):
                content = pd.DataFrame([content])
            if not isinstance(content, pd.DataFrame):
                raise UserError(f"{name} is no table; restrict the search to tables, by `kind`")
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
        if not self._place.local:
            return None
        url = HERE + relative(Path(path), Path(self._place.directory))
        return next((name for name in self.entries if self._urls.get(name) == url), None)

    def allows(self, path: str | Path) -> bool:
        """Whether something at a local path may be read for this catalog."""
        where = os.path.realpath(path)
        return self._place.local and (self._allow_outside or self._place.holds(where))

    def __getitem__(self, name: str) -> Artifact:
        """Return the reader of an entry.

        Raises:
            KeyError: there is none of this name.
            UserError: it asks for what is not allowed.

        """
        if name not in self.entries:
            raise KeyError(f"no entry {name!r}{did_you_mean(name, self.entries, list_all=False)}")
        try:
            if name in self._refused:
                raise Refused(self._refused[name])
            where = place_of(self._urls[name], self._place, allow_outside=self._allow_outside)
            suffix = Path(where).suffix
            if FORMATS[suffix].directory and self._place.local:
                if not self._allow_outside:
                    demand_no_links(Path(where))
                demand_known_codecs(Path(where))
        except Refused as reason:
            raise UserError(f"{name} is not read: {reason}") from None
        described = self.entries[name]
        file = getattr(datatypes, FORMATS[suffix].datatype.partition(":")[2])
        return Artifact(
            data=file(url=where, metadata=described.metadata),
            name=name,
            metadata=described.metadata,
            output_instance=FORMATS[suffix].result,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        kinds: dict[str, int] = defaultdict(int)
        for description in self.entries.values():
            kinds[str(description.metadata["kind"])] += 1
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return f"<Catalog: {len(self)} entries{': ' if listed else ''}{listed}>"


def _has(metadata: Mapping[str, Any], key: str) -> bool:
    return key in metadata and isinstance(metadata[key], (str, int, float))


def _facets(every: Iterable[Mapping[str, Any]]) -> dict[str, set[Facet]]:
    values: dict[str, set[Facet]] = defaultdict(set)
    for metadata in every:
        for key in metadata.keys() - _NO_FACETS:
            if _has(metadata, key):
                values[key].add(metadata[key])
    return values
