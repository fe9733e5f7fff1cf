# Jobs that share a process. Their rules do what the rules of single jobs would, by the very command
# lines that those would run, each with its own log and benchmark: nothing is defined twice.


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
        Path(output[0]).write_text(f"{params.jobs}\n")


for chunk, sharing in CHUNKS.items():

    rule:
        name:
            f"together_{chunk}"
        input:
            jobs=f"<results>/together/{chunk}.json",
            prompts=expand(
                "<results>/prompts/{dataset}.jsonl",
                dataset=study.datasets_of(sharing[0]),
            ),
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
            "blockcoupling together @{input.jobs:q} > {log:q} 2>&1"


# Models that take the same have the same datasets: a rule for each kind of them.
if study.together.datasets:
    if "text" in MODALITIES:

        ruleorder: extract_together > extract

    if "image" in MODALITIES:

        ruleorder: extract_together_of_images > extract

    for kind in MODALITIES:
        takers = [
            name for name, model in study.models.items() if model.takes == kind
        ]

        rule:
            name:
                "extract_together" if kind == "text" else "extract_together_of_images"
            input:
                weights="<results>/weights/{model}/{checkpoint}.json",
                prompts=expand(
                    "<results>/prompts/{dataset}.jsonl",
                    dataset=study.datasets_of(takers[0]),
                ),
            output:
                [
                    str(pattern).replace("{dataset}", dataset)
                    for dataset in study.datasets_of(takers[0])
                    for pattern in rules.extract.output
                ],
            log:
                "<logs>/extract_together/{model}/{checkpoint}.log",
            benchmark:
                "<benchmarks>/extract_together/{model}/{checkpoint}.tsv"
            wildcard_constraints:
                model="|".join(map(re.escape, takers)),
            conda:
                ENVIRONMENT
            threads: cores(datasets_needs, "model", "checkpoint")
            resources:
                **need(datasets_needs, "model", "checkpoint"),
            params:
                jobs=lambda wildcards: as_json(
                    [
                        by_itself(
                            "extract", {**wildcards, "dataset": dataset}, dataset
                        )
                        for dataset in study.datasets_of(wildcards.model)
                    ]
                ),
            message:
                "Measure {wildcards.model}, {wildcards.checkpoint}, on all datasets"
            shell:
                "blockcoupling together {params.jobs:q} > {log:q} 2>&1"
