rule prompts:
    input:
        images_measured_at,
    output:
        prompts="<results>/prompts/{dataset}.jsonl",
        entry="<entries>/prompts/{dataset}/prompts.yml",
    log:
        "<logs>/prompts/{dataset}.log",
    benchmark:
        "<benchmarks>/prompts/{dataset}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(1500),
        runtime=scaled(20),
    params:
        spec=lambda wildcards: as_json(study.dataset_spec(wildcards.dataset)),
        content=content_of_prompts,
        entries=subpath(output.entry, parent=True),
    message:
        "Collect the prompts of {wildcards.dataset}"
    shell:
        "blockcoupling prompts --spec {params.spec:q} --out {output.prompts:q}"
        " --entries {params.entries:q} --facet dataset={wildcards.dataset}"
        " > {log:q} 2>&1"
