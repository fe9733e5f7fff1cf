rule score:
    input:
        question_files,
        model="<results>/models/{model}/{checkpoint}.json",
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
    params:
        spec=lambda wildcards: as_json(
            study.score_spec(wildcards.model, wildcards.checkpoint)
        ),
        device=study.extract.device,
        entries=subpath(output.entry, parent=True),
    message:
        "Score {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling score --model {input.model:q} --spec {params.spec:q} --out {output.score:q}"
        " --device {params.device:q} --entries {params.entries:q}"
        " --facet model={wildcards.model} --facet checkpoint={wildcards.checkpoint}"
        " > {log:q} 2>&1"
