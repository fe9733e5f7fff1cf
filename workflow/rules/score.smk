rule score:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
    output:
        score="<results>/scores/{model}/{checkpoint}.parquet",
        entry="<entries>/{model}/{checkpoint}/score.yml",
    log:
        "<logs>/score/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/score/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(needs.score_needs, "model")
    resources:
        **need(needs.score_needs, "model"),
        device=study.extract.device,
    params:
        spec=lambda wildcards: as_json(
            study.score_spec(wildcards.model, wildcards.checkpoint)
        ),
        content=content_of_questions,
        entries=subpath(output.entry, parent=True),
    message:
        "Score {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling score --model {input.weights:q} --spec {params.spec:q} --out {output.score:q}"
        " --device {resources.device:q} --entries {params.entries:q}"
        " --facet model={wildcards.model} --facet checkpoint={wildcards.checkpoint}"
        " > {log:q} 2>&1"
