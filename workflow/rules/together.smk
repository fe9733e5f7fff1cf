# Jobs that share a process. Their rules do what the rules of single jobs would, by the very command
# lines that those would run, each with its own log and benchmark: nothing is defined twice.

import re
from types import SimpleNamespace

from snakemake.jobs import Job

CHUNKS = study.chunks()
SHARING = [model for models in CHUNKS.values() for model in models]

# The rules of single jobs are for models that do not share a process.
BY_ITSELF = (
    f"(?!(?:{'|'.join(map(re.escape, SHARING))})/)" if SHARING else ""
) + "[A-Za-z0-9][A-Za-z0-9._-]*"


def made_by(step, of):
    """The files that a step makes, for each of the wildcards given (name: value)."""
    return [
        str(pattern).format(**wildcards) for wildcards in of for pattern in step.output
    ]


def steps_of(model):
    """The jobs of a model, in an order in which each finds what it needs: rule, wildcards."""
    section = study.models[model]
    if isinstance(section, TrainedModel):
        yield "train", {"model": model}
        for step in section.checkpoints:
            yield "checkpoint", {"model": model, "step": str(step)}
    further = {
        "tokenwise": list(study.token_jobs()),
        "damage": list(study.damage_jobs()),
    }
    for checkpoint in study.checkpoints(model):
        of = {"model": model, "checkpoint": checkpoint}
        yield "weights", of
        yield "model", of
        for dataset in study.datasets:
            yield "extract", {**of, "dataset": dataset}
            yield "reduce", {**of, "dataset": dataset}
            for rule, jobs in further.items():
                if (model, checkpoint, dataset) in jobs:
                    yield rule, {**of, "dataset": dataset}
        yield "score", of


def by_itself(rule, wildcards, chain):
    """What a rule would run for these wildcards, for `blockcoupling together`."""
    graph = SimpleNamespace(workflow=workflow, jobid=lambda job: 0)
    job = Job(workflow.get_rule(rule), graph, dict(wildcards))
    words, _, _ = job.shellcmd.rpartition(" > ")
    # What its parameters hold beside the words: the content of files that are not made here.
    beside = {name: str(value) for name, value in sorted(job.params.items())}
    return {
        "name": f"{rule} of {', '.join(wildcards.values())}",
        "chain": chain,
        "words": shlex.split(words)[1:],
        "log": str(job.log[0]),
        "benchmark": str(job.benchmark),
        "parameters": digest_of(beside),
    }


def jobs_of_chunk(wildcards):
    return as_json(
        [
            by_itself(rule, of, model)
            for model in CHUNKS[wildcards.chunk]
            for rule, of in steps_of(model)
        ]
    )


# The list is a file of its own: every file that a job makes remembers the job's parameters.
rule jobs:
    output:
        "<results>/together/{chunk}.json",
    log:
        "<logs>/together/{chunk}.jobs.log",
    benchmark:
        "<benchmarks>/jobs/{chunk}.tsv"
    localrule: True
    params:
        jobs=jobs_of_chunk,
    message:
        "List the jobs of {wildcards.chunk}"
    run:
        Path(output[0]).write_text(params.jobs + "\n")


for chunk, sharing in CHUNKS.items():

    rule:
        name:
            f"together_{chunk}"
        input:
            f"<results>/together/{chunk}.json",
            expand("<results>/prompts/{dataset}.jsonl", dataset=study.datasets),
        output:
            [
                file
                for model in sharing
                for step, of in steps_of(model)
                for file in made_by(getattr(rules, step), [of])
            ],
        log:
            f"<logs>/together/{chunk}.log",
        benchmark:
            f"<benchmarks>/together/{chunk}.tsv"
        conda:
            ENVIRONMENT
        threads: chunk_needs(study, chunk).threads
        resources:
            mem_mb=scaled(chunk_needs(study, chunk).mem_mb),
            runtime=scaled(chunk_needs(study, chunk).minutes),
            gpu=chunk_needs(study, chunk).gpus,
        message:
            f"Train, measure and score {sharing[0]} to {sharing[-1]}"
        shell:
            "blockcoupling together @{input[0]:q} > {log:q} 2>&1"


if study.together.datasets:

    ruleorder: extract_together > extract

    rule extract_together:
        input:
            weights="<results>/weights/{model}/{checkpoint}.json",
            prompts=expand("<results>/prompts/{dataset}.jsonl", dataset=study.datasets),
        output:
            [
                str(pattern).replace("{dataset}", dataset)
                for dataset in study.datasets
                for pattern in rules.extract.output
            ],
        log:
            "<logs>/extract_together/{model}/{checkpoint}.log",
        benchmark:
            "<benchmarks>/extract_together/{model}/{checkpoint}.tsv"
        conda:
            ENVIRONMENT
        threads: cores(datasets_needs, "model", "checkpoint")
        resources:
            **need(datasets_needs, "model", "checkpoint"),
        params:
            jobs=lambda wildcards: as_json(
                [
                    by_itself("extract", {**wildcards, "dataset": dataset}, dataset)
                    for dataset in study.datasets
                ]
            ),
        message:
            "Measure {wildcards.model}, {wildcards.checkpoint}, on all datasets"
        shell:
            "blockcoupling together {params.jobs:q} > {log:q} 2>&1"
