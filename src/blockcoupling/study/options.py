"""Options of the verbs that the workflow runs, out of a study: one function for each step.

They are the parameters of its rule: a job is run again when its own options change. What changes no
result (devices, engines) is therefore not among them; those are resources of the rules.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any, TypeVar

from blockcoupling.config.choices import Modality
from blockcoupling.config.flags import flags_of, option
from blockcoupling.config.measurement import CompareTokens, Loading
from blockcoupling.config.steps import EXPLORER, step
from blockcoupling.config.study import Study
from blockcoupling.sources.records import without_facts
from blockcoupling.study.by_name import call
from blockcoupling.study.inside_snakemake import resource_of_rule
from blockcoupling.study.needs import reduce_needs

SomeSettings = TypeVar("SomeSettings", bound=Loading)


def options_of(study: Study, name: str, wildcards: Mapping[str, str]) -> str:
    """The options of a job of a step, as words of a command line."""
    where = step(name).options
    return "" if where is None else str(call(where, study, wildcards))


def entries_of(study: Study, name: str, wildcards: Mapping[str, str]) -> str:
    """Options that say where a job writes its entries, and what the catalog finds them by."""
    directory = study.results / step(name).entry_directory.format(**wildcards)
    facets = [f"{key}={value}" for key, value in wildcards.items() if key != "modality"]
    return words(entries=directory, facet=facets)


def words(**options: Any) -> str:
    """Command-line options: a list repeats its option, True stands alone, None is omitted."""
    found = []
    for name, value in options.items():
        flag = option(name)
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                found.append(flag)
            elif each is not None and each is not False:
                found += [flag, str(each)]
    return shlex.join(found)


def as_json(specification: Any) -> str:
    """JSON with keys in a fixed order: the same specification gives the same text."""
    return json.dumps(specification, sort_keys=True)


def on_any_device(settings: SomeSettings) -> SomeSettings:
    """Settings without the device, which changes no result."""
    return settings.model_copy(update={"device": type(settings).model_fields["device"].default})


def weights(study: Study, model: str, checkpoint: str) -> str:
    """What numbers depend on: a corrected fact about a model changes none of it."""
    return words(spec=as_json(without_facts(study.model_spec(model, checkpoint))))


def model(study: Study, model: str, checkpoint: str) -> str:
    """A checkpoint with its facts."""
    return words(spec=as_json(study.model_spec(model, checkpoint)))


def prompts(study: Study, dataset: str) -> str:
    """A dataset."""
    return words(spec=as_json(study.dataset_spec(dataset)))


def extract(study: Study, model: str, checkpoint: str, dataset: str) -> str:
    """Settings of the measurement; a store that already has more than they ask for keeps it."""
    options = study.extract_of(model, checkpoint)
    store = step("extract").makes["svd"].format(model=model, checkpoint=checkpoint, dataset=dataset)

    def there(variable: str) -> bool:
        return (study.results / store / variable).is_dir()

    halves = [half for half in ("attention", "mlp") if there(f"A_{half}")]
    more: dict[str, Any] = {"parts": list(dict.fromkeys([*options.parts, *halves]))}
    for name, variable in (("swapped", "A_swapped"), ("detached", "A_detached")):
        more[name] = getattr(options, name) or there(variable)
    return shlex.join(flags_of(on_any_device(options).model_copy(update=more)))


def tokenwise(study: Study) -> str:
    """Settings of comparing tokens, and what is tabulated of it."""
    section = study.tokenwise
    assert section is not None
    settings = shlex.join(flags_of(on_any_device(section), CompareTokens))
    tabulated = [each for each in study.reduce.k if each < section.k] + [section.k]
    more = words(count=section.prompts, variant=study.reduce.variants, tabulated=tabulated)
    return f"{settings} {more}"


def reduce(study: Study) -> str:
    """What is tabulated."""
    return words(k=study.reduce.k, variant=study.reduce.variants)


def reduce_engine(
    workflow: Any,
    study: Study,
    wildcards: Mapping[str, str],
    attempt: int,
    threads: int,
    alone: bool,
) -> str:
    """Options that say where a reduction is calculated.

    Args:
        workflow: Snakemake's, which knows Slurm's partition and account.
        study: The study.
        wildcards: Wildcards of the job.
        attempt: Each asks for more memory and time of its workers.
        threads: Threads of the job.
        alone: Whether the job has a process of its own.
    """
    section = study.reduce
    if not alone:
        return words(cluster="threads", workers=1)
    if section.cluster != "slurm":
        return words(cluster=section.cluster, workers=threads, dashboard=section.dashboard)
    needed = reduce_needs(study, wildcards["model"], wildcards["dataset"])
    place = "logs/reduce/{model}/{checkpoint}/{dataset}.workers".format(**wildcards)
    asked = {
        "memory_mb": needed.mem_mb * attempt,
        "minutes": needed.minutes * attempt,
        "logs": str(study.results / place),
    }
    for name in ("partition", "account"):  # as of all other jobs
        if given := resource_of_rule(workflow, "reduce", f"slurm_{name}"):
            asked[name] = given
    return words(
        cluster="slurm",
        workers=section.workers,
        dashboard=section.dashboard,
        job=json.dumps(asked),
    )


def score(study: Study, model: str, checkpoint: str) -> str:
    """Which scores a checkpoint gets."""
    return words(spec=as_json(study.score_spec(model, checkpoint)))


def catalog(study: Study) -> str:
    """The study that a catalog belongs to."""
    return words(study=study.study, results=study.results)


def correlate(study: Study, modality: Modality) -> str:
    """What is correlated with which score."""
    section = study.correlate
    score, metric = study.headline(modality)
    return words(
        k=section.k,
        variant=section.variant,
        checkpoints=section.checkpoints,
        resample=section.resample,
        hold=[f"{name}={way}" for name, way in section.hold.items()],
        score=score,
        metric=metric,
        bootstrap=section.bootstrap,
        seed=section.seed,
        modality=_named(study, modality),
    )


def figures(study: Study, modality: Modality) -> str:
    """How the figures of a modality are written."""
    return words(format=study.figures.formats, modality=_named(study, modality))


def explore(study: Study) -> str:
    """Its title."""
    return words(title=f"Block coupling: {study.study}")


def report(study: Study) -> str:
    """Its title, the catalog that its example opens, and the explorer next to it."""
    title = f"Block coupling: {study.study}"
    return words(title=title, final_catalog=study.catalog, explorer=EXPLORER)


def _named(study: Study, modality: Modality) -> Modality | None:
    """A modality, if the study has another one too: artifacts then have it as a facet."""
    return modality if len(study.modalities()) > 1 else None
