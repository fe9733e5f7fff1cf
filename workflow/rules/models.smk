rule train:
    output:
        directory("<results>/checkpoints/{model}"),
    log:
        "<logs>/train/{model}.log",
    benchmark:
        "<benchmarks>/train/{model}.tsv"
    # The longest training first, so that it is not waited for at the end.
    priority: lambda wildcards: needs.parameters(study, wildcards.model)
    conda:
        ENVIRONMENT
    threads: cores(needs.train_needs, "model")
    resources:
        **need(needs.train_needs, "model"),
    params:
        spec=lambda wildcards: as_json(study.train_spec(wildcards.model)),
    message:
        "Train {wildcards.model}"
    shell:
        "blockcoupling train --spec {params.spec:q} --out {output:q} > {log:q} 2>&1"


rule model:
    input:
        weights,
    output:
        record="<results>/models/{model}/{checkpoint}.json",
        entry="<entries>/{model}/{checkpoint}/model.yml",
    log:
        "<logs>/model/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/model/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **need(needs.record_needs, "model", "checkpoint"),
    params:
        spec=lambda wildcards: as_json(
            study.model_spec(wildcards.model, wildcards.checkpoint)
        ),
        entries=subpath(output.entry, parent=True),
    message:
        "Look up {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling model --spec {params.spec:q} --out {output.record:q}"
        " --entries {params.entries:q}"
        " --facet model={wildcards.model} --facet checkpoint={wildcards.checkpoint}"
        " > {log:q} 2>&1"
