rule extract:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        prompts="<results>/prompts/{dataset}.jsonl",
    output:
        store="<results>/svd/{model}/{checkpoint}/{dataset}/svd.zarr/zarr.json",
        entry="<entries>/{model}/{checkpoint}/{dataset}/svd.yml",
    log:
        "<logs>/extract/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/extract/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(needs.extract_needs, "model", "dataset", "checkpoint")
    resources:
        **need(needs.extract_needs, "model", "dataset", "checkpoint"),
        device=study.extract.device,
    params:
        # Finished prompts, in a directory that no rule owns: Snakemake would clear it.
        parts=f"{study.results}/parts/{{model}}/{{checkpoint}}/{{dataset}}",
        store=subpath(output.store, parent=True),
        entries=subpath(output.entry, parent=True),
        options=extract_options,
    message:
        "Measure {wildcards.model}, {wildcards.checkpoint}, on {wildcards.dataset}"
    shell:
        "blockcoupling extract --model {input.weights:q} --prompts {input.prompts:q}"
        " --parts {params.parts:q} --out {params.store:q} {params.options}"
        " --device {resources.device:q} --entries {params.entries:q} --facet model={wildcards.model}"
        " --facet checkpoint={wildcards.checkpoint} --facet dataset={wildcards.dataset}"
        " > {log:q} 2>&1"


# Workers in jobs of their own: what hands work to them runs where Snakemake does. In a job it would
# hold a place in the queue and wait for them, and many such jobs would leave none for workers.
if study.reduce.cluster == "slurm":

    localrules:
        reduce,


rule reduce:
    input:
        "<results>/svd/{model}/{checkpoint}/{dataset}/svd.zarr/zarr.json",
    output:
        expand(
            "<results>/tables/{{model}}/{{checkpoint}}/{{dataset}}/{table}.parquet",
            table=TABLES,
        ),
        matrices="<results>/tables/{model}/{checkpoint}/{dataset}/miscoupling.zarr/zarr.json",
        entries=expand(
            "<entries>/{{model}}/{{checkpoint}}/{{dataset}}/{table}.yml",
            table=[*TABLES, "miscoupling"],
        ),
    log:
        "<logs>/reduce/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/reduce/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(needs.reduce_needs, "model", "dataset")
    resources:
        **need(needs.reduce_needs, "model", "dataset"),
        # Where it runs, which changes no number and so is not among the parameters.
        engine=reduce_engine,
    params:
        store=subpath(input[0], parent=True),
        tables=subpath(output.matrices, ancestor=2),
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=flags(k=study.reduce.k, variant=study.reduce.variants),
    message:
        "Tabulate {wildcards.model}, {wildcards.checkpoint}, on {wildcards.dataset}"
    shell:
        "blockcoupling reduce --svd {params.store:q} --out {params.tables:q} {params.options}"
        " {resources.engine} --entries {params.entries:q} --facet model={wildcards.model}"
        " --facet checkpoint={wildcards.checkpoint} --facet dataset={wildcards.dataset}"
        " > {log:q} 2>&1"
