"""What the rules have in common: the study, and how they read the table of its steps.

A rule has its outputs, its options and its needs from the row of its name in
`blockcoupling/config/steps.py`. `made("extract")` is
{"svd": "<results>/svd/{model}/{checkpoint}/{dataset}/svd.zarr/zarr.json"}.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from blockcoupling import lab
from blockcoupling.config.steps import entered_by, step, steps
from blockcoupling.errors import UserError
from blockcoupling.lab import options as lab_options
from blockcoupling.study import inputs, inside_snakemake, options, sharing, sizes
from blockcoupling.study.by_name import apply
from blockcoupling.study.check import load_config
from blockcoupling.study.results_owner import claim
from blockcoupling.study.screen import ending
from blockcoupling.study.settings import TOGETHER, Settings, running
from blockcoupling.study.slurm_faults import fixed_requests
from blockcoupling.study.together import jobs_of, rule_needs

lab.join()

try:
    study = load_config(config, written_in=CONFIGURED_IN)
    settings = Settings(study, inside_snakemake.in_main_process(workflow))
    if inside_snakemake.in_main_process(workflow):
        claim(study)
        settings.write()
except UserError as error:
    raise WorkflowError(str(error)) from None


pathvars:
    results=str(study.results),
    logs=str(study.results / "logs"),
    benchmarks=str(study.results / "benchmarks"),


# The verbs of the environment that runs Snakemake, active or not.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

# Steps that download run on Snakemake's host (`localrules`). A job on a node finds everything in the
# cache and does not use the hub, which it may not reach, unless the variable says otherwise.
if inside_snakemake.on_a_node(workflow) and "SLURM_JOB_ID" in os.environ:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Computed once, not in each job.
if inside_snakemake.in_main_process(workflow):
    for sentence in fixed_requests(inside_snakemake.set_resources(workflow)):
        logger.warning(sentence)

# What makes the study again, for readers of its catalog.
AGAIN = shlex.join(["snakemake", *inside_snakemake.configuration_words(workflow)])

# Used with `--software-deployment-method conda` only.
ENVIRONMENT = "../../environment.yml"

# Models whose jobs share a process, by the name of their group.
CHUNKS = study.chunks()
SHARING = [model for models in CHUNKS.values() for model in models]


def made(name):
    """The files that a step makes and enters in the catalog, by kind."""
    return {kind: f"<results>/{path}" for kind, path in step(name).artifacts.items()}


def files(name):
    """The further files that a step makes."""
    return [f"<results>/{path}" for path in step(name).files]


def entries(name):
    """The entry files that a step writes."""
    return [f"<results>/{path}" for path in step(name).entries.values()]


def outputs(row):
    """All files of a step, for `expand` over `jobs`."""
    return [f"{{results}}/{path}" for path in row.outputs]


def jobs(row):
    """The wildcards of all jobs that the study has of a step, a list for each wildcard."""
    found = row.wildcards(study)
    columns = {name: [job[name] for job in found] for name in row.per}
    return {"results": [study.results] * len(found), **columns}


def of(function):
    """A function of the study and of a job's wildcards, as rules take it."""
    return lambda wildcards: apply(function, study, wildcards)


def options_of(name):
    return lambda wildcards: options.options_of(study, name, wildcards)


def settled(name):
    """The file of what decides the results of a job, as its input (see study/settings.py)."""
    return lambda wildcards: settings.file(name, wildcards)


def entered(name):
    """Options: the directory of a job's entries, and what the catalog finds them by."""
    return lambda wildcards: options.entries_of(study, name, wildcards)


def cores(name):
    return lambda wildcards: rule_needs(study, name, wildcards).threads


def need(name):
    """Resources of a rule's jobs, more of them at each further attempt."""
    asked = lambda wildcards: rule_needs(study, name, wildcards)
    return {
        "mem_mb": lambda wildcards, attempt: asked(wildcards).mem_mb * attempt,
        "runtime": lambda wildcards, attempt: asked(wildcards).minutes * attempt,
        "gpu": lambda wildcards: asked(wildcards).gpus,
    }


def scaled(amount):
    """A fixed amount, and more of it at each further attempt."""
    return lambda wildcards, attempt: amount * attempt
