"""Catalogs of several studies, put together: an entry keeps its study, in its name and as a facet.

Tables of several studies are stacked only if they can be compared: nothing was measured twice, and
prompts and settings are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from blockcoupling.catalog.entries import MADE
from blockcoupling.errors import UserError

STUDY = "study"
"""The facet that tells the studies of a catalog apart."""

_SHOWN = 5  # names that are in two studies

_MEASURED_BY = ("extract", "tokenwise", "damage")
"""Verbs whose settings decide what tables hold."""
_DECIDE_NONE = frozenset(
    (
        *("model", "prompts", "parts", "out", "table", "entries", "facet"),  # places and names
        *("device", "batch", "stream", "seed"),  # agree within the tolerance
        *("vectors", "swapped", "overlaps", "full", "variant", "tabulated"),  # add to the others
        *("block_parts", "detached", "eigenvalues", "cumulative", "readout"),  # these, too
    )
)


class Source(NamedTuple):
    """A catalog, or an entry file, that is put together with others.

    Attributes:
        file: Where it is.
        entries: What is in it, by name.
        study: Name of its study, and directory of the study's results; None of an entry file.
        combined: Whether it was put together of several studies itself.
    """

    file: str
    entries: Mapping[str, Any]
    study: tuple[str, str] | None = None
    combined: bool = False

    @property
    def studies(self) -> set[str]:
        """Names of its studies, if it was put together of several."""
        return {name.partition("/")[0] for name in self.entries} if self.combined else set()


def put_together(sources: Sequence[Source]) -> tuple[dict[str, tuple[str | None, Any]], list[str]]:
    """Put catalogs and entry files together.

    Args:
        sources: Of one study, as the stages of its workflow are: names stay as they are. Of several
            studies: the name of an entry begins with that of its study. Studies of one name are
            numbered in this order.

    Returns:
        Study (None: of one study only) and entry, by name, sorted; and a sentence for each name
        that more than one source claims.
    """
    combined = any(source.combined for source in sources)
    used = set().union(*(source.studies for source in sources))
    labels = _labels([source.study for source in sources if source.study], used)
    found: dict[str, tuple[str | None, Any]] = {}
    claims: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        label = labels[source.study] if source.study and (combined or len(labels) > 1) else None
        for name, each in source.entries.items():
            whole = f"{label}/{name}" if label else name
            found[whole] = label, each
            claims[whole].append(source.file)
    problems = [
        f"{name} is claimed by {len(files)} files: {', '.join(sorted(files))}"
        for name, files in sorted(claims.items())
        if len(files) > 1
    ]
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"and {len(problems) - _SHOWN} more that are claimed twice"]
    return {name: found[name] for name in sorted(found)}, problems


def _labels(studies: Iterable[tuple[str, str]], used: Iterable[str]) -> dict[tuple[str, str], str]:
    """A name for each study; studies of one name are numbered."""
    distinct = list(dict.fromkeys(studies))
    names = [name for name, _ in distinct]
    taken = {*used, *(name for name in names if names.count(name) == 1)}
    found = {}
    for study in distinct:
        label = study[0]
        if names.count(label) > 1 or label in used:
            label = next(each for n in count(1) if (each := f"{study[0]}-{n}") not in taken)
        taken.add(label)
        found[study] = label
    return found


def demand_comparable(
    chosen: Mapping[str, Mapping[str, Any]],
    whole: Mapping[str, Mapping[str, Any]],
    remedy: str = "Restrict the search to one of them: search(study={one!r}, …)",
) -> None:
    """Refuse to stack tables of several studies that cannot be compared.

    Args:
        chosen: Metadata of the tables' entries, by name.
        whole: Metadata of all entries of the catalog.
        remedy: What to do, the last line of the message; `one` is the name of a study.

    Raises:
        UserError: Naming each thing that was measured twice, and each setting or set of prompts
            that differs.
    """
    studies = {str(each[STUDY]) for each in chosen.values() if STUDY in each}
    if len(studies) < 2:
        return
    problems = list(_twice(chosen))
    own = [each for each in whole.values() if each.get(STUDY) in studies]
    datasets = {each["dataset"] for each in chosen.values() if "dataset" in each}
    problems += _prompts(own, datasets)
    if any("model" in each and each["kind"] not in ("model", "score") for each in chosen.values()):
        problems += _settings(own)
    if problems:
        raise UserError(
            f"tables of the studies {', '.join(sorted(studies))} cannot be put into one:\n"
            + "\n".join(f"- {problem}" for problem in problems)
            + f"\n{remedy.format(one=min(studies))}"
        )


def _twice(chosen: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What several studies have an entry of: stacked, it would count twice."""
    of: dict[str, list[str]] = defaultdict(list)
    for name, each in chosen.items():
        if STUDY in each:
            of[name.removeprefix(f"{each[STUDY]}/")].append(str(each[STUDY]))
    twice = [
        f"{name} is in {' and '.join(sorted(studies))}"
        for name, studies in of.items()
        if len(studies) > 1
    ]
    yield from twice[:_SHOWN]
    if len(twice) > _SHOWN:
        yield f"and {len(twice) - _SHOWN} more that are in two studies"


def _prompts(own: Iterable[Mapping[str, Any]], datasets: set[Any]) -> Iterator[str]:
    """Datasets that have other prompts in one study than in another."""
    digests: dict[str, dict[str, str]] = defaultdict(dict)
    for each in own:
        if each["kind"] == "prompts" and each.get("dataset") in datasets:
            digests[str(each["dataset"])][str(each[STUDY])] = str(each.get("digest"))
    for dataset, of in sorted(digests.items()):
        if len(set(of.values())) > 1:
            yield f"the prompts of {dataset} differ between {' and '.join(sorted(of))}"


def _settings(own: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Settings of a verb that have no value in common between two studies."""
    values: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    asked: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for each in own:
        words = (each.get(MADE) or {}).get("command") or []
        if len(words) > 1 and words[1] in _MEASURED_BY:
            asked[words[1]].append((str(each[STUDY]), _options(words[2:])))
    for verb, jobs in asked.items():
        for option in {option for _, options in jobs for option in options}:
            for study, options in jobs:
                values[verb, option][study].add(options.get(option, "its default"))
    for (verb, option), of in sorted(values.items()):
        if not set.intersection(*of.values()):
            shown = [
                f"{', '.join(sorted(given))} in {study}" for study, given in sorted(of.items())
            ]
            yield f"the setting {option} of {verb} is {' and '.join(shown)}"


def _options(words: Sequence[str]) -> dict[str, str]:
    """The options of a command line that decide numbers, with their values."""
    found: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        name = word.removeprefix("--")
        if word.startswith("--") and name.removeprefix("no-") not in _DECIDE_NONE:
            found[name] = "on" if following.startswith("--") else following
    return found
