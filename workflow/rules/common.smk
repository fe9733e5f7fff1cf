"""What the rules have in common: the study, where its files lie, and what its jobs ask for."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from blockcoupling.lab import needs as lab_needs
from blockcoupling.study import inside_snakemake, needs, sizes
from blockcoupling.study.check import load_config
from blockcoupling.study.screen import ending
from blockcoupling.study.slurm_faults import fixed_requests
from blockcoupling.study.together import chunk_needs, datasets_needs
from blockcoupling.errors import UserError
from blockcoupling.figures import FIGURES, figures_of
from blockcoupling.lab import join as join_laboratory
from blockcoupling.digests import file_digest, json_digest
from blockcoupling.sources.identity import content_identity
from blockcoupling.sources.records import without_facts
from blockcoupling.config.flags import flags_of
from blockcoupling.config.damage import CauseDamage
from blockcoupling.config.measurement import CompareTokens
from blockcoupling.config.datasets import JsonlDataset
from blockcoupling.config.artifacts import DAMAGE_STATISTICS, INTERVENTION_STATISTICS
from blockcoupling.config.artifacts import STATISTICS, TABLES
from blockcoupling.config.models import LocalModel, TrainedModel, unit

join_laboratory()

try:
    study = load_config(config, written_in=CONFIGURED_IN)
except UserError as error:
    raise WorkflowError(str(error)) from None


pathvars:
    results=str(study.results),
    logs=str(study.results / "logs"),
    benchmarks=str(study.results / "benchmarks"),
    entries=str(study.results / "entries"),


# The verbs of the environment that runs Snakemake, active or not.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

# Steps that download run where Snakemake does (`localrules`). A job on a node finds all of it in the
# cache, and asks no hub, which it might wait for in vain: unless the variable says otherwise.
if inside_snakemake.on_a_node(workflow) and "SLURM_JOB_ID" in os.environ:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Once, not in each job.
if inside_snakemake.in_main_process(workflow):
    for sentence in fixed_requests(inside_snakemake.set_resources(workflow)):
        logger.warning(sentence)

# Used with `--software-deployment-method conda` only.
ENVIRONMENT = "../../environment.yml"

# ---------------------------------------------------------------------------- what a job asks for


def need(estimate, *names):
    """Resources of a job: `estimate(study, *wildcards)`, more of it at each further attempt."""

    def asked(wildcards):
        return estimate(study, *(wildcards[name] for name in names))

    return {
        "mem_mb": lambda wildcards, attempt: asked(wildcards).mem_mb * attempt,
        "runtime": lambda wildcards, attempt: asked(wildcards).minutes * attempt,
        "gpu": lambda wildcards: asked(wildcards).gpus,
    }


def cores(estimate, *names):
    return lambda wildcards: estimate(
        study, *(wildcards[name] for name in names)
    ).threads


def scaled(amount):
    """A fixed amount, and more of it at each further attempt."""
    return lambda wildcards, attempt: amount * attempt


# -------------------------------------------------------------------------- what a job is made from


def as_json(specification):
    """Only what concerns this job: a change anywhere else in the study leaves it alone."""
    return json.dumps(specification, sort_keys=True)


def training(model):
    """What decides the weights at every step; which steps are kept decides nothing."""
    spec = study.train_spec(model)
    return {key: value for key, value in spec.items() if key != "checkpoints"}


def trained_here(wildcards):
    """The small file that differs wherever a checkpoint's weights do."""
    section = study.models[wildcards.model]
    if not isinstance(section, TrainedModel):
        return []
    spec = study.model_spec(wildcards.model, wildcards.checkpoint)
    return f"{spec['path']}/training.json"


def image_files(images):
    """The files that images are read from, where they lie on this machine."""
    path = getattr(images, "path", None)
    if path is None:
        return []
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [str(each) for each in found if each.is_file()]


def images_trained_on(wildcards):
    return image_files(getattr(study.models[wildcards.model].train, "images", None))


def images_measured_at(wildcards):
    return image_files(getattr(study.datasets[wildcards.dataset], "images", None))


# Files that are not made here are known by their content: their times do not tell when one is
# replaced by an older one, nor when a link is set to another directory.


def content_of_model(wildcards):
    section = study.models[wildcards.model]
    if not isinstance(section, LocalModel):
        return None
    spec = study.model_spec(wildcards.model, wildcards.checkpoint)
    return json_digest(content_identity(spec))


def content_of_prompts(wildcards):
    section = study.datasets[wildcards.dataset]
    return file_digest(section.path) if isinstance(section, JsonlDataset) else None


def content_of_questions(_):
    tasks = study.score.harness.items()
    return {
        name: file_digest(task.path) for name, task in tasks if task.path is not None
    }


def flags(**options):
    """Command-line options; a list repeats its option, True stands alone, None is left out."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                words.append(option)
            elif each is not None and each is not False:
                words += [option, str(each)]
    return shlex.join(words)


def holds(product, wildcards):
    """Whether a store has more than is needed now, which is no reason to measure anew."""
    place = "svd/{model}/{checkpoint}/{dataset}/svd.zarr".format(**wildcards)
    return (study.results / place / product).is_dir()


def on_any_device(settings):
    """Without the device: it is among the resources, which start nothing anew."""
    return settings.model_copy(update={"device": settings.defaults()["device"]})


def extract_options(wildcards):
    options = study.extract_of(wildcards.model, wildcards.checkpoint)
    swapped = options.swapped or holds("A_swapped", wildcards)
    options = on_any_device(options).model_copy(update={"swapped": swapped})
    return shlex.join(flags_of(options))


def reduce_engine(wildcards, attempt, threads):
    """Options that say where a reduction is calculated."""
    cluster, watched = study.reduce.cluster, study.reduce.dashboard
    if wildcards.model in SHARING:  # a small job among others of one process
        return flags(cluster="threads", workers=1)
    if cluster != "slurm":
        return flags(cluster=cluster, workers=threads, dashboard=watched)
    needed = needs.reduce_needs(study, wildcards.model, wildcards.dataset)
    place = "reduce/{model}/{checkpoint}/{dataset}.workers".format(**wildcards)
    asked = {
        "memory_mb": needed.mem_mb * attempt,
        "minutes": needed.minutes * attempt,
        "logs": str(study.results / "logs" / place),
    }
    # As for any other job, from the profile or the command line.
    for name in ("partition", "account"):
        if given := inside_snakemake.resource_of_rule(
            workflow, "reduce", f"slurm_{name}"
        ):
            asked[name] = given
    return flags(
        cluster=cluster,
        workers=study.reduce.workers,
        dashboard=watched,
        job=json.dumps(asked),
    )


def tokenwise_options():
    if study.tokenwise is None:
        return ""
    k = study.tokenwise.k
    return " ".join(
        [
            shlex.join(flags_of(on_any_device(study.tokenwise), CompareTokens)),
            flags(
                count=study.tokenwise.prompts,
                variant=study.reduce.variants,
                tabulated=[each for each in study.reduce.k if each < k] + [k],
            ),
        ]
    )


def damage_options(wildcards):
    whose = (wildcards.model, wildcards.checkpoint, wildcards.dataset)
    options = on_any_device(study.damage_of(*whose))
    words = shlex.join(flags_of(options, CauseDamage))
    return f"{words} {flags(count=options.prompts)}"


def damage_statistics_options():
    if study.damage is None:
        return ""
    return flags(
        k=study.correlate.k,
        variant=study.correlate.variant,
        also=study.damage.k,
        permutations=study.damage.permutations,
        seed=study.correlate.seed,
    )


def intervention_options():
    if study.intervention is None:
        return ""
    return flags(
        spec=as_json(study.intervention.model_dump(mode="json")),
        k=study.correlate.k,
        variant=study.correlate.variant,
        metric=study.headline("text")[1],
    )


MODALITIES = study.modalities()
MIXED = len(MODALITIES) > 1
DATASETS = list(dict.fromkeys(dataset for _, _, dataset in study.jobs()))


def correlate_options(modality):
    """What correlations of models of a modality are about; named where there are others too."""
    options = study.correlate
    score, metric = study.headline(modality)
    return flags(
        k=options.k,
        variant=options.variant,
        checkpoints=options.checkpoints,
        resample=options.resample,
        hold=[f"{name}={way}" for name, way in options.hold.items()],
        score=score,
        metric=metric,
        bootstrap=options.bootstrap,
        seed=options.seed,
        modality=modality if MIXED else None,
    )


# ------------------------------------------------------------------------------ what there is to be


def of_checkpoints(pattern):
    """The path of every checkpoint's file."""
    return [
        pattern.format(model=model, checkpoint=checkpoint)
        for model in study.models
        for checkpoint in study.checkpoints(model)
    ]


def of_measurements(pattern):
    """The path of the file of every checkpoint on every dataset."""
    return [
        pattern.format(model=model, checkpoint=checkpoint, dataset=dataset)
        for model, checkpoint, dataset in study.jobs()
    ]


def measured_entries():
    entries = expand("<entries>/prompts/{dataset}/prompts.yml", dataset=DATASETS)
    of_weights = ["weight_spectra"] if study.weight_spectra else []
    for kind in ["model", "score", *of_weights]:
        entries += of_checkpoints(f"<entries>/{{model}}/{{checkpoint}}/{kind}.yml")
    for kind in ["svd", *TABLES, "miscoupling"]:
        entries += of_measurements(
            f"<entries>/{{model}}/{{checkpoint}}/{{dataset}}/{kind}.yml"
        )
    for kind in ["token_products", "tokenwise"]:
        entries += [
            f"<entries>/{model}/{checkpoint}/{dataset}/{kind}.yml"
            for model, checkpoint, dataset in study.token_jobs()
        ]
    for kind in ["block_damage", "damage"]:
        entries += [
            f"<entries>/{model}/{checkpoint}/{dataset}/{kind}.yml"
            for model, checkpoint, dataset in study.damage_jobs()
        ]
    return entries


def statistics_entries():
    of_damage = DAMAGE_STATISTICS if list(study.damage_jobs()) else ()
    of_arms = INTERVENTION_STATISTICS if study.intervention else ()
    of_images = STATISTICS if MIXED else ()
    return [
        *expand("<entries>/{kind}.yml", kind=[*STATISTICS, *of_damage, *of_arms]),
        *expand("<entries>/of_images/{kind}.yml", kind=of_images),
    ]


def figure_entries():
    formats = study.figures.formats
    entry = "<entries>/figures/{figure}.{format}.yml"
    of_images = "<entries>/figures/of_images/{figure}.{format}.yml"
    return [
        *expand(entry, figure=figures_of(MODALITIES[0]), format=formats),
        *expand(of_images, figure=figures_of("image") if MIXED else [], format=formats),
    ]
