"""The steps of a study, one row each.

The workflow's outputs, entries and targets, jobs that share a process, `plan`, `status`, `clean`
and the table of costs all read this table.

A new step is a row here, a rule in `workflow/rules/` that has its outputs from the row, and a verb
of the command line. The laboratory adds rows of its own with :func:`add`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockcoupling.config.artifacts import STATISTICS, TABLES

if TYPE_CHECKING:
    from blockcoupling.config.study import Study

CHECKPOINT = ("model", "checkpoint")
MEASUREMENT = ("model", "checkpoint", "dataset")
OF_CHECKPOINT = "{model}/{checkpoint}"
OF_MEASUREMENT = "{model}/{checkpoint}/{dataset}"


def of_checkpoints(study: Study) -> Iterable[tuple[str, ...]]:
    """A job for each checkpoint of each model."""
    return [(model, each) for model in study.models for each in study.checkpoints(model)]


_JOBS: Mapping[tuple[str, ...], Callable[[Study], Iterable[tuple[str, ...]]]] = {
    (): lambda study: [()],
    ("dataset",): lambda study: dict.fromkeys((dataset,) for _, _, dataset in study.jobs()),
    ("modality",): lambda study: [(each,) for each in study.modalities()],
    CHECKPOINT: of_checkpoints,
    MEASUREMENT: lambda study: study.jobs(),
}
"""All jobs that a study has for some wildcards."""


@dataclass(frozen=True)
class Step:
    """One step of the workflow: a rule, which runs one verb of the command line.

    Attributes:
        name: Name of the rule, of its directory of logs and of its directory of benchmarks.
        per: The rule's wildcards: what a job of it is for, in the order of its paths.
        jobs: Values of the wildcards of all jobs that a study has; none where it does not ask for
            the step. None: a job for everything that `per` names.
        makes: Kind of catalog entry → path pattern of the artifact, below the results.
        files: Path patterns of further files that it makes, which have no entry.
        parts: Path pattern of the directory that keeps finished parts, or states, that a killed job
            resumes from.
        needs: `module:function` that estimates what a job asks for: called with the study and the
            wildcards that it has parameters for. None: next to nothing.
        options: `module:function` that gives the options of the verb, called like `needs`.
        prompts: Prompts of its dataset that a job goes through at most; None: all of them.
        other_verb: The verb that it runs, if that has not the rule's name.
        result: Whether a study asks for its files by themselves; otherwise they are made again only
            when another step needs them.
        catalog: Whether it is a join of entries: of those of all rows since the join before.
        version: Increased whenever the same settings and inputs give other results: all of its
            jobs are then run again.
    """

    name: str
    per: tuple[str, ...] = ()
    jobs: Callable[[Study], Iterable[tuple[str, ...]]] | None = None
    makes: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    parts: str | None = None
    needs: str | None = None
    options: str | None = None
    prompts: Callable[[Study], int | None] | None = None
    other_verb: str | None = None
    catalog: bool = False
    result: bool = True
    version: int = 1

    @property
    def verb(self) -> str:
        """The verb of the command line."""
        return self.other_verb or self.name.replace("_", "-")

    def wildcards(self, study: Study) -> list[dict[str, str]]:
        """The wildcards of each job that a study has."""
        jobs = self.jobs or _JOBS[self.per]
        return [dict(zip(self.per, values, strict=True)) for values in jobs(study)]

    @property
    def artifacts(self) -> dict[str, str]:
        """Kind → pattern of the file that Snakemake knows the artifact by, below the results."""
        return {
            kind: f"{path}/zarr.json" if path.endswith(".zarr") else path
            for kind, path in self.makes.items()
        }

    @property
    def entry_directory(self) -> str:
        """Pattern of the directory of its entry files, below the results."""
        named = [] if "model" in self.per else [self.name]
        return "/".join(["entries", *named, *(f"{{{name}}}" for name in self.per)])

    @property
    def entries(self) -> dict[str, str]:
        """Kind → pattern of the entry file, below the results."""
        return {kind: f"{self.entry_directory}/{kind}.yml" for kind in self.makes}

    @property
    def outputs(self) -> list[str]:
        """Patterns of all files that a job makes, below the results."""
        return [*self.artifacts.values(), *self.files, *self.entries.values()]


EXPLORER = "explorer.html"
"""The exported explorer, next to the report, which links to it."""

_NEEDS, _OPTIONS = "blockcoupling.study.needs", "blockcoupling.study.options"


def _join(name: str, *files: str) -> Step:
    options = f"{_OPTIONS}:catalog"
    return Step(name, files=files, options=options, other_verb="catalog", catalog=True)


_STEPS = [
    Step(
        "weights",
        CHECKPOINT,
        files=(f"weights/{OF_CHECKPOINT}.json",),
        needs=f"{_NEEDS}:record_needs",
        options=f"{_OPTIONS}:weights",
        other_verb="model",
    ),
    Step(
        "model",
        CHECKPOINT,
        makes={"model": f"models/{OF_CHECKPOINT}.json"},
        options=f"{_OPTIONS}:model",
    ),
    Step(
        "prompts",
        ("dataset",),
        makes={"prompts": "prompts/{dataset}.jsonl"},
        options=f"{_OPTIONS}:prompts",
    ),
    Step(
        "extract",
        MEASUREMENT,
        makes={"svd": f"svd/{OF_MEASUREMENT}/svd.zarr"},
        parts=f"parts/{OF_MEASUREMENT}",
        needs=f"{_NEEDS}:extract_needs",
        options=f"{_OPTIONS}:extract",
    ),
    Step(
        "tokenwise",
        MEASUREMENT,
        lambda study: study.token_jobs(),
        {
            "token_products": f"tokens/{OF_MEASUREMENT}/products.zarr",
            "tokenwise": f"tables/{OF_MEASUREMENT}/tokenwise.parquet",
        },
        parts=f"token_parts/{OF_MEASUREMENT}",
        needs=f"{_NEEDS}:tokenwise_needs",
        options=f"{_OPTIONS}:tokenwise",
        prompts=lambda study: study.tokenwise.prompts if study.tokenwise else None,
    ),
    Step(
        "reduce",
        MEASUREMENT,
        makes={
            **{kind: f"tables/{OF_MEASUREMENT}/{kind}.parquet" for kind in TABLES},
            "miscoupling": f"tables/{OF_MEASUREMENT}/miscoupling.zarr",
        },
        needs=f"{_NEEDS}:reduce_needs",
        options=f"{_OPTIONS}:reduce",
        version=2,  # CKA without bias
    ),
    Step(
        "score",
        CHECKPOINT,
        makes={"score": f"scores/{OF_CHECKPOINT}.parquet"},
        needs=f"{_NEEDS}:score_needs",
        options=f"{_OPTIONS}:score",
    ),
    Step(
        "weight_spectra",
        CHECKPOINT,
        lambda study: of_checkpoints(study) if study.weight_spectra else [],
        {"weight_spectra": f"weight_spectra/{OF_CHECKPOINT}.parquet"},
        needs=f"{_NEEDS}:weight_spectra_needs",
    ),
    _join("catalog_measurements", "catalog/measurements.yml"),
    Step(
        "correlate",
        ("modality",),
        makes={kind: f"statistics/{{modality}}/{kind}.parquet" for kind in STATISTICS},
        options=f"{_OPTIONS}:correlate",
    ),
    Step("costs", makes={"costs": "statistics/costs.parquet"}),
    _join("catalog_statistics", "catalog/statistics.yml"),
    # Which figures there are depends on the numbers: the list says which were drawn.
    Step(
        "figures",
        ("modality",),
        files=("figures/{modality}.json",),
        options=f"{_OPTIONS}:figures",
    ),
    _join("catalog_figures", "catalog/figures.yml"),
    Step("explore", makes={"explorer": EXPLORER}, options=f"{_OPTIONS}:explore"),
    Step(
        "report",
        makes={"report": "report.html"},
        files=("findings.txt",),
        options=f"{_OPTIONS}:report",
    ),
    # The study's own catalog, wherever the study wants it.
    _join("catalog"),
]


def steps() -> tuple[Step, ...]:
    """All rows, in the order of the work."""
    return tuple(_STEPS)


def step(name: str) -> Step:
    """The row of that name.

    Raises:
        KeyError: There is none.
    """
    for each in _STEPS:
        if each.name == name:
            return each
    raise KeyError(name)


def entered_by(catalog: str) -> list[Step]:
    """The rows whose entries a join adds: those since the join before it."""
    before: list[Step] = []
    for each in _STEPS:
        if each.name == catalog:
            break
        before = [] if each.catalog else [*before, each]
    return before


def add(*rows: Step, before: str) -> None:
    """Add rows in front of another one; those that are there already stay where they are."""
    fresh = [row for row in rows if row not in _STEPS]
    place = _STEPS.index(step(before))
    _STEPS[place:place] = fresh
