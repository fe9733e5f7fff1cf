# Jacobians of a prompt's tokens compared with each other, where the study asks for it.


rule tokenwise:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        prompts="<results>/prompts/{dataset}.jsonl",
    output:
        store="<results>/tokens/{model}/{checkpoint}/{dataset}/products.zarr/zarr.json",
        table="<results>/tables/{model}/{checkpoint}/{dataset}/tokenwise.parquet",
        entries=expand(
            "<entries>/{{model}}/{{checkpoint}}/{{dataset}}/{kind}.yml",
            kind=["token_products", "tokenwise"],
        ),
    log:
        "<logs>/tokenwise/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/tokenwise/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(needs.tokenwise_needs, "model")
    resources:
        **need(needs.tokenwise_needs, "model"),
        device=study.tokenwise.device if study.tokenwise else study.extract.device,
    params:
        # Finished prompts, in a directory that no rule owns: Snakemake would clear it.
        parts=f"{study.results}/token_parts/{{model}}/{{checkpoint}}/{{dataset}}",
        store=subpath(output.store, parent=True),
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=tokenwise_options(),
    message:
        "Compare the tokens of {wildcards.dataset} in {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling tokenwise --model {input.weights:q} --prompts {input.prompts:q}"
        " --parts {params.parts:q} --out {params.store:q} --table {output.table:q}"
        " {params.options} --device {resources.device:q} --entries {params.entries:q} --facet model={wildcards.model}"
        " --facet checkpoint={wildcards.checkpoint} --facet dataset={wildcards.dataset}"
        " > {log:q} 2>&1"
