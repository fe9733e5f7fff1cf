"""The catalog: every artifact of a study as one Intake entry, found by its facets.

Each job writes one small *entry file* (:func:`write_entry`) beside nothing that another job writes;
:func:`join` builds the catalog from them, from scratch, so that no entry can be lost to a race.
Paths are relative, first to the entry file, then to the catalog (``{CATALOG_DIR}``): a study can be
moved as a whole and read again. The catalog uses Intake's own readers only, so that plain
``intake.open_catalog`` reads every entry without this package.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import url2pathname

import fsspec  # type: ignore[import-untyped]
import yaml
from intake.readers import datatypes, readers
from intake.readers.convert import GenericFunc, Pipeline
from intake.readers.entry import Catalog as IntakeCatalog

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Facet = str | int | float | bool
"""A value that one can search for."""


class Kind(NamedTuple):
    """What the entries of one kind hold and which command makes them."""

    holds: str
    made_by: str


KINDS: Mapping[str, Kind] = {
    "model": Kind("facts about one checkpoint and where its weights are", "blockcoupling model"),
    "prompts": Kind("the prompts of one dataset", "blockcoupling prompts"),
    "svd": Kind("singular triples of every block's residual Jacobian", "blockcoupling extract"),
    "coupling": Kind("coupling per prompt, variant and K", "blockcoupling reduce"),
    "locality": Kind("mis-coupling by distance between blocks", "blockcoupling reduce"),
    "trajectory": Kind("line-shape score, expodistance, equidistance", "blockcoupling reduce"),
    "spectra": Kind("norms and effective ranks per block", "blockcoupling reduce"),
    "singular_values": Kind("singular values per block and index", "blockcoupling reduce"),
    "inverse_depth_fit": Kind("1/s against depth: fit and R²", "blockcoupling reduce"),
    "miscoupling": Kind("block by block matrices over prompts", "blockcoupling reduce"),
    "token_products": Kind("A of every two compared tokens", "blockcoupling tokenwise"),
    "tokenwise": Kind("mis-coupling between tokens", "blockcoupling tokenwise"),
    "score": Kind("what a checkpoint scores", "blockcoupling score"),
    "predictors": Kind("one row per checkpoint: measurements and facts", "blockcoupling correlate"),
    "correlation": Kind("each predictor held against each score", "blockcoupling correlate"),
    "correlation_by_k": Kind(
        "coupling held against the score, for every K and variant", "blockcoupling correlate"
    ),
    "variance": Kind("variance between prompts, datasets, models", "blockcoupling correlate"),
    "costs": Kind("what each job took: time, processor, memory", "blockcoupling costs"),
    "figure": Kind("a picture", "blockcoupling figure"),
    "report": Kind("the report of a study", "blockcoupling report"),
}

_IN_NAME = ("model", "checkpoint", "dataset", "score", "figure", "format")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# The C parser and writer are ten times faster, which thousands of entries need.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


# ------------------------------------------------------------------------------------ one entry


def entry(kind: str, path: str | Path, facets: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe one artifact.

    Args:
        kind: one of :data:`KINDS`.
        path: the artifact; for a Zarr store the directory or the ``zarr.json`` in it.
        facets: what to find it by (model, checkpoint, dataset, …). NumPy scalars and paths are
            stored as plain values; ``None`` is left out.

    Returns:
        ``{"name", "path", "metadata"}``; the name joins the kind and the identifying facets with
        slashes, e.g. ``coupling/pythia-6.9b/main/arc``.

    Raises:
        UserError: unknown kind, missing artifact, unreadable format, a facet that is no plain value
            or an identifying facet that is no valid name.

    """
    from blockcoupling.store.schema import SCHEMA_VERSION

    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}{_meant(kind, KINDS)}; kinds: {', '.join(KINDS)}")
    artifact = Path(path)
    if artifact.name == "zarr.json":
        artifact = artifact.parent
    if artifact.suffix not in _READERS:
        raise UserError(
            f"no reader for {artifact}: the catalog reads files that end in {', '.join(_READERS)}"
        )
    if not artifact.exists():
        raise UserError(f"{artifact} does not exist: make it before it is entered in the catalog")
    given = {key: _plain(key, value) for key, value in (facets or {}).items() if value is not None}
    if reserved := given.keys() & {"kind", "schema_version", "created_by"}:
        raise UserError(f"facets that are set by the catalog itself: {', '.join(sorted(reserved))}")
    identity = [str(given[key]) for key in _IN_NAME if key in given]
    if wrong := [value for value in identity if not _NAME.fullmatch(value)]:
        raise UserError(f"not a name (letters, digits, '.', '_', '-'): {', '.join(wrong)}")
    return {
        "name": "/".join([kind, *identity]),
        "path": str(artifact),
        "metadata": {
            "kind": kind,
            "source": KINDS[kind].made_by,
            **given,
            "schema_version": SCHEMA_VERSION,
            "created_by": f"blockcoupling {blockcoupling.__version__}",
        },
    }


def write_entry(
    file: str | Path, kind: str, path: str | Path, facets: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the entry file of one artifact, atomically; return what it says.

    Args:
        file: the entry file (YAML); directories are made.
        kind: as in :func:`entry`.
        path: as in :func:`entry`; stored relative to the entry file's directory.
        facets: as in :func:`entry`.

    Raises:
        UserError: as :func:`entry`.

    """
    described = entry(kind, path, facets)
    target = Path(file)
    described["path"] = _relative(Path(described["path"]), target.parent)
    with replacing(target) as fresh:
        fresh.write_text(_yaml(described), encoding="utf-8")
    return described


def read_entry(file: str | Path) -> dict[str, Any]:
    """Read an entry file; its ``path`` comes back absolute.

    Raises:
        UserError: the file is missing, no entry, or its artifact is gone.

    """
    source = Path(file)
    try:
        described = yaml.load(source.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"cannot read the entry file {source}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML; delete it and make it again ({error})") from error
    if not isinstance(described, dict) or described.keys() != {"name", "path", "metadata"}:
        raise UserError(f"{source} is no entry file; `blockcoupling entry` writes them")
    artifact = (source.parent / described["path"]).resolve()
    if not artifact.exists():
        raise UserError(f"{source} names {artifact}, which does not exist")
    return {**described, "path": str(artifact)}


# ---------------------------------------------------------------------------------- the catalog


def join(entry_files: Iterable[str | Path], out: str | Path) -> Catalog:
    """Build the catalog file from entry files, replacing what was there; return it opened.

    The result depends on the entries alone, not on their order.

    Args:
        entry_files: files made by :func:`write_entry`.
        out: the catalog file; urls are stored relative to its directory.

    Raises:
        UserError: entry files that cannot be used, and names that more than one of them claims.

    """
    target = Path(out)
    claims: dict[str, list[str]] = defaultdict(list)
    entries: dict[str, dict[str, Any]] = {}
    problems = []
    for file in entry_files:
        try:
            described = read_entry(file)
        except UserError as error:
            problems.append(str(error))
            continue
        claims[described["name"]].append(str(file))
        entries[described["name"]] = described
    problems += [
        f"{name} is claimed by {len(files)} entry files: {', '.join(sorted(files))}"
        for name, files in sorted(claims.items())
        if len(files) > 1
    ]
    if problems:
        raise UserError("the catalog cannot be built:\n" + "\n".join(f"- {p}" for p in problems))

    catalog = IntakeCatalog(
        metadata={
            "description": "Block coupling of transformers: every artifact of a study",
            "created_by": f"blockcoupling {blockcoupling.__version__}",
        }
    )
    for name in sorted(entries):
        path, metadata = Path(entries[name]["path"]), entries[name]["metadata"]
        url = "{CATALOG_DIR}/" + _relative(path, target.parent)
        catalog.add_entry(_READERS[path.suffix](url, metadata), name=name)
        # Intake iterates and counts aliases; without them a catalog looks empty to it.
        catalog.aliases[name] = name
    with replacing(target) as fresh:
        fresh.write_text(_yaml(catalog.to_dict()), encoding="utf-8")
    return open_catalog(target)


def open_catalog(path: str | Path) -> Catalog:
    """Open a catalog file (a local path or any fsspec url).

    Raises:
        UserError: there is no such file, or it is not an Intake 2 catalog.

    """
    url = os.fspath(path)
    opener = fsspec.open(url, mode="rt", encoding="utf-8")
    try:
        with opener as stream:
            content = yaml.load(stream, Loader=_Loader)
    except FileNotFoundError as error:
        raise UserError(
            f"no catalog at {url}: `make demo` (or snakemake with your config) makes it"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"{url} is not YAML, so no catalog ({error})") from error
    if not isinstance(content, dict) or content.get("version") != 2:
        raise UserError(f"{url} is no Intake 2 catalog; `blockcoupling catalog` writes one")
    catalog: Catalog = Catalog.from_dict(content)
    catalog.user_parameters.update(
        CATALOG_PATH=url,
        CATALOG_DIR=opener.fs.unstrip_protocol(opener.fs._parent(url)),
        STORAGE_OPTIONS={},
    )
    return catalog


class Catalog(IntakeCatalog):
    """An Intake catalog that can be searched by facet.

    ``catalog[name]`` is an Intake reader and ``catalog[name].read()`` the artifact: a lazy
    :class:`xarray.Dataset` for a Zarr store, a DataFrame for Parquet and JSON lines, a dict for
    JSON, text for HTML and bytes for a picture. Iteration goes over the names, sorted.
    """

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
        known = self._known if "_known" in self.__dict__ else sorted(self.facets())
        if unknown := [key for key in facets if key not in known]:
            hints = ", ".join(f"{key!r}{_meant(key, known)}" for key in unknown)
            raise UserError(f"unknown facet {hints}; facets: {', '.join(known) or 'none'}")
        wanted = {
            key: {str(v) for v in ([value] if isinstance(value, Facet) else value)}
            for key, value in facets.items()
        }
        found = type(self)()
        found.data, found.metadata = self.data, self.metadata
        found.user_parameters = self.user_parameters
        found.entries = {
            name: description
            for name, description in self.entries.items()
            if all(
                key in description.metadata and str(description.metadata[key]) in values
                for key, values in wanted.items()
            )
        }
        found.aliases = {name: name for name in found.entries}
        # A search within an empty result still has to tell a facet from a typing mistake.
        found._known = known
        return found

    def facets(self) -> dict[str, list[Facet]]:
        """Return the facets of this catalog with the values that occur, both sorted."""
        values: dict[str, set[Facet]] = defaultdict(set)
        for description in self.entries.values():
            for key, value in description.metadata.items():
                if isinstance(value, Facet):
                    values[key].add(value)
        return {key: sorted(values[key], key=str) for key in sorted(values)}

    def one(self, **facets: Facet | Iterable[Facet]) -> Any:
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
            UserError: there are no entries, or some are no tables.

        """
        import pandas as pd

        if not len(self):
            raise UserError("nothing to read: no entry of the catalog matches the search")
        tables = []
        for name in self:
            reader = self[name]
            content = reader.read(**(options if isinstance(reader, readers.Pandas) else {}))
            if isinstance(content, dict):
                content = pd.DataFrame([content])
            if not isinstance(content, pd.DataFrame):
                raise UserError(f"{name} is no table; restrict the search to tables, by `kind`")
            tables.append(content)
        return pd.concat(tables, ignore_index=True)

    def path(self, name: str) -> Path:
        """Return where the artifact of an entry lies on the local disk."""
        reader = self[name]
        data = reader.steps[0][2]["data"] if isinstance(reader, Pipeline) else reader.data
        return Path(os.path.realpath(_local(data.url)))

    def __getitem__(self, name: str) -> Any:
        try:
            reader = super().__getitem__(name)
        except KeyError:
            raise KeyError(f"no entry {name!r}{_meant(name, self.entries)}") from None
        if reader.metadata.get("kind") == "svd":
            return StoreReader(**reader.kwargs, metadata=reader.metadata)
        return reader

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        kinds: dict[str, int] = defaultdict(int)
        for description in self.entries.values():
            kinds[description.metadata["kind"]] += 1
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return f"<Catalog: {len(self)} entries{': ' if listed else ''}{listed}>"


class StoreReader(readers.XArrayDatasetReader):
    """Opens an extraction store lazily, after checking it against the schema."""

    def _read(self, *args: Any, **kwargs: Any) -> xr.Dataset:
        from blockcoupling.store.schema import validate

        ds = super()._read(*args, **kwargs)
        validate(ds)
        return ds


# -------------------------------------------------------------------------- readers, by file type


def _zarr(url: str, metadata: dict[str, Any]) -> Any:
    # As store.stores.open_store has them: all blocks of a prompt's Jacobians together.
    chunks = {"prompt": 1, "pair": 1, "block": -1} if metadata["kind"] == "svd" else {}
    return readers.XArrayDatasetReader(
        data=datatypes.Zarr(url=url), chunks=chunks, consolidated=False, metadata=metadata
    )


def _parquet(url: str, metadata: dict[str, Any]) -> Any:
    return readers.PandasParquet(data=datatypes.Parquet(url=url), metadata=metadata)


def _json(url: str, metadata: dict[str, Any]) -> Any:
    return _text_then(url, metadata, "builtins:dict", {"func": "{func(json:loads)}"})


def _json_lines(url: str, metadata: dict[str, Any]) -> Any:
    # dtype=False: an id such as "007" stays what it is.
    options = {"lines": True, "dtype": False}
    return _text_then(
        url,
        metadata,
        "pandas:DataFrame",
        {"func": "{func(io:StringIO)}"},
        {"func": "{func(pandas:read_json)}", **options},
    )


def _text_then(
    url: str, metadata: dict[str, Any], result: str, *functions: dict[str, Any]
) -> Pipeline:
    return Pipeline(
        steps=[
            (readers.FileTextReader, (), {"data": datatypes.JSONFile(url=url)}),
            *((GenericFunc, (), function) for function in functions),
        ],
        out_instances=["builtins:str", *[result] * len(functions)],
        metadata=metadata,
    )


def _html(url: str, metadata: dict[str, Any]) -> Any:
    return readers.FileTextReader(data=datatypes.Text(url=url), metadata=metadata)


def _png(url: str, metadata: dict[str, Any]) -> Any:
    return readers.FileByteReader(data=datatypes.PNG(url=url), metadata=metadata)


def _vector(url: str, metadata: dict[str, Any]) -> Any:
    return readers.FileByteReader(data=datatypes.FileData(url=url), metadata=metadata)


_READERS = {
    ".zarr": _zarr,
    ".parquet": _parquet,
    ".json": _json,
    ".jsonl": _json_lines,
    ".html": _html,
    ".png": _png,
    ".pdf": _vector,
    ".svg": _vector,
}


# -------------------------------------------------------------------------------------- plumbing


def _plain(key: str, value: Any) -> Any:
    """Turn NumPy scalars and paths into what YAML's safe dumper takes."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [_plain(key, each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(key, each) for name, each in value.items()}
    if value is None or isinstance(value, Facet):
        return value
    raise UserError(f"facet {key}: a {type(value).__name__} cannot be stored; use text or a number")


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _yaml(content: dict[str, Any]) -> str:
    text: str = yaml.dump(content, Dumper=_Dumper, allow_unicode=True)
    return text


def _relative(path: Path, directory: Path) -> str:
    # Real paths: the system resolves `link/..` to the parent of the link's target.
    return Path(os.path.relpath(path.resolve(), directory.resolve())).as_posix()


def _local(url: str) -> str:
    protocol, separator, rest = url.partition("://")
    if not separator:
        return url
    if protocol != "file":
        raise UserError(f"{url} is not on the local disk")
    return url2pathname(rest) if os.name == "nt" else rest
