rule extract:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        prompts="<results>/prompts/{dataset}.jsonl",
        settings=settled("extract"),
    output:
        **made("extract"),
        entries=entries("extract"),
    log:
        "<logs>/extract/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/extract/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores("extract")
    resources:
        **need("extract"),
        device=study.extract.device,
    params:
        # Finished prompts, in a directory that no rule owns: Snakemake would clear it.
        parts=f"{study.results}/{step('extract').parts}",
        store=subpath(output.svd, parent=True),
        options=options_of("extract"),
        entered=entered("extract"),
    message:
        "Measure {wildcards.model}, {wildcards.checkpoint}, on {wildcards.dataset}"
    shell:
        "blockcoupling extract --model {input.weights:q} --prompts {input.prompts:q}"
        " --parts {params.parts:q} --out {params.store:q} {params.options}"
        " --device {resources.device:q} {params.entered} > {log:q} 2>&1"


# Workers in separate jobs: the process that gives them work runs where Snakemake does. In a job it
# would wait for them while it occupies a place in the queue, and many such jobs would leave none for
# workers.
if study.reduce.cluster == "slurm":

    localrules:
        reduce,


rule reduce:
    input:
        svd="<results>/svd/{model}/{checkpoint}/{dataset}/svd.zarr/zarr.json",
        settings=settled("reduce"),
    output:
        **made("reduce"),
        entries=entries("reduce"),
    log:
        "<logs>/reduce/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/reduce/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores("reduce")
    resources:
        **need("reduce"),
        # The place where it runs changes no number and so is not among the parameters.
        engine=lambda wildcards, attempt, threads: options.reduce_engine(
            workflow,
            study,
            wildcards,
            attempt,
            threads,
            wildcards.model not in SHARING,
        ),
    params:
        store=subpath(input.svd, parent=True),
        tables=subpath(output.miscoupling, ancestor=2),
        options=options_of("reduce"),
        entered=entered("reduce"),
    message:
        "Tabulate {wildcards.model}, {wildcards.checkpoint}, on {wildcards.dataset}"
    shell:
        "blockcoupling reduce --svd {params.store:q} --out {params.tables:q} {params.options}"
        " {resources.engine} {params.entered} > {log:q} 2>&1"
