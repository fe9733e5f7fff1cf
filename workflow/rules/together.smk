# Jobs that share a process. Their rules run the same command lines as the rules of single jobs, each
# with its own log and benchmark: nothing is defined twice.


# The list is a separate file, because every output records the parameters of its job. It has a
# digest of what decides each job, so that a chunk starts again where that changes.
rule jobs:
    input:
        settings=settled(TOGETHER),
    output:
        "<results>/together/{chunk}.json",
    log:
        "<logs>/together/{chunk}.jobs.log",
    benchmark:
        "<benchmarks>/jobs/{chunk}.tsv"
    localrule: True
    params:
        jobs=lambda wildcards: sharing.jobs_of_chunk(
            workflow, study, settings, wildcards.chunk
        ),
    message:
        "List the jobs of {wildcards.chunk}"
    run:
        Path(output[0]).write_text(f"{params.jobs}\n")


for chunk, models in CHUNKS.items():

    rule:
        name:
            f"together_{chunk}"
        input:
            jobs=f"<results>/together/{chunk}.json",
            prompts=expand(
                "<results>/prompts/{dataset}.jsonl",
                dataset=study.datasets_of(models[0]),
            ),
        output:
            [
                file.format(results=study.results, **of)
                for row, of in jobs_of(study, models)
                for file in outputs(row)
            ],
        log:
            f"<logs>/together/{chunk}.log",
        benchmark:
            f"<benchmarks>/together/{chunk}.tsv"
        conda:
            ENVIRONMENT
        threads: cores(f"together_{chunk}")
        resources:
            **need(f"together_{chunk}"),
        message:
            f"Train, measure and score {models[0]} to {models[-1]}"
        shell:
            "blockcoupling together @{input.jobs:q} > {log:q} 2>&1"


# Models with the same kind of input have the same datasets: one rule for each kind.
BATCHED = study.modalities() if study.together.datasets else []
if "text" in BATCHED:

    ruleorder: extract_together_text > extract


if "image" in BATCHED:

    ruleorder: extract_together_image > extract


for modality in BATCHED:
    takers = [name for name in study.models if study.models[name].takes == modality]
    datasets = study.datasets_of(takers[0])

    rule:
        name:
            f"extract_together_{modality}"
        input:
            weights="<results>/weights/{model}/{checkpoint}.json",
            prompts=expand("<results>/prompts/{dataset}.jsonl", dataset=datasets),
            settings=lambda wildcards, datasets=datasets: [
                file
                for dataset in datasets
                for file in settings.file("extract", {**wildcards, "dataset": dataset})
            ],
        output:
            [
                file.replace("{dataset}", dataset)
                for dataset in datasets
                for file in [*made("extract").values(), *entries("extract")]
            ],
        log:
            "<logs>/extract_together/{model}/{checkpoint}.log",
        benchmark:
            "<benchmarks>/extract_together/{model}/{checkpoint}.tsv"
        wildcard_constraints:
            model="|".join(map(re.escape, takers)),
        conda:
            ENVIRONMENT
        threads: cores(f"extract_together_{modality}")
        resources:
            **need(f"extract_together_{modality}"),
        params:
            jobs=lambda wildcards: sharing.jobs_of_checkpoint(
                workflow, study, settings, **wildcards
            ),
        message:
            "Measure {wildcards.model}, {wildcards.checkpoint}, on all datasets"
        shell:
            "blockcoupling together {params.jobs:q} > {log:q} 2>&1"
