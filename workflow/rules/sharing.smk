"""What jobs share a process, and the command lines that they would run by themselves."""

import re

CHUNKS = study.chunks()
SHARING = [model for models in CHUNKS.values() for model in models]

# The rules of single jobs are for models that do not share a process.
NOT_SHARING = f"(?!(?:{'|'.join(map(re.escape, SHARING))})/)" if SHARING else ""
BY_ITSELF = f"{NOT_SHARING}[A-Za-z0-9][A-Za-z0-9._-]*"


def made_by(step, of):
    """The files that a step makes, for each of the wildcards given (name: value)."""
    return [
        str(pattern).format(**wildcards) for wildcards in of for pattern in step.output
    ]


def keeps(section):
    """The rule that keeps the checkpoints of a model trained here."""
    return "checkpoint" if section.takes == "text" else "image_checkpoint"


def steps_of(model):
    """The jobs of a model, in an order in which each finds what it needs: rule, wildcards."""
    section = study.models[model]
    if isinstance(section, TrainedModel):
        yield "train", {"model": model}
        for number in section.checkpoints:
            yield keeps(section), {"model": model, unit(section.train): str(number)}
    further = {
        "tokenwise": list(study.token_jobs()),
        "damage": list(study.damage_jobs()),
    }
    for checkpoint in study.checkpoints(model):
        of = {"model": model, "checkpoint": checkpoint}
        yield "weights", of
        yield "model", of
        for dataset in study.datasets_of(model):
            yield "extract", {**of, "dataset": dataset}
            yield "reduce", {**of, "dataset": dataset}
            for rule, jobs in further.items():
                if (model, checkpoint, dataset) in jobs:
                    yield rule, {**of, "dataset": dataset}
        yield "score", of
        if study.weight_spectra:
            yield "weight_spectra", of


def by_itself(rule, wildcards, chain):
    """What a rule would run for these wildcards, for `blockcoupling together`."""
    job = inside_snakemake.job_of_rule(workflow, rule, wildcards)
    words, _, _ = job.command.rpartition(" > ")
    # What its parameters hold beside the words: the content of files that are not made here.
    beside = {name: str(value) for name, value in sorted(job.parameters.items())}
    return {
        "name": f"{rule} of {', '.join(wildcards.values())}",
        "chain": chain,
        "words": shlex.split(words)[1:],
        "log": job.log,
        "benchmark": job.benchmark,
        "parameters": json_digest(beside),
    }


def jobs_of_chunk(wildcards):
    return as_json(
        [
            by_itself(rule, of, model)
            for model in CHUNKS[wildcards.chunk]
            for rule, of in steps_of(model)
        ]
    )
