rule train:
    input:
        images_trained_on,
    output:
        "<results>/training/{model}/trained.json",
    log:
        "<logs>/train/{model}.log",
    benchmark:
        "<benchmarks>/train/{model}.tsv"
    # The longest training first, so that it is not waited for at the end.
    priority: lambda wildcards: sizes.parameters(study, wildcards.model)
    conda:
        ENVIRONMENT
    threads: cores(lab_needs.train_needs, "model")
    resources:
        **need(lab_needs.train_needs, "model"),
        # Not in params, which start a training anew: what is kept on the way changes no weights.
        checkpoints=lambda wildcards: ",".join(
            str(step) for step in study.models[wildcards.model].checkpoints
        ),
    params:
        spec=lambda wildcards: as_json(training(wildcards.model)),
        # States, to go on from, in a directory that no rule owns: Snakemake would clear it.
        states=subpath(output[0], parent=True),
    message:
        "Train {wildcards.model}"
    shell:
        "blockcoupling train --spec {params.spec:q} --states {params.states:q}"
        " --checkpoints {resources.checkpoints:q} > {log:q} 2>&1"


# From the state that the training has left; one that is asked for later trains on to there.
rule checkpoint:
    input:
        "<results>/training/{model}/trained.json",
    output:
        multiext(
            "<results>/checkpoints/{model}/step{step}/",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "training.json",
        ),
    log:
        "<logs>/checkpoint/{model}/step{step}.log",
    benchmark:
        "<benchmarks>/checkpoint/{model}/step{step}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(lab_needs.train_needs, "model")
    resources:
        **need(lab_needs.train_needs, "model"),
    params:
        spec=lambda wildcards: as_json(
            training(wildcards.model) | {"checkpoints": [int(wildcards.step)]}
        ),
        states=subpath(input[0], parent=True),
        out=subpath(output[0], ancestor=2),
    message:
        "Keep step {wildcards.step} of {wildcards.model}"
    shell:
        "blockcoupling train --spec {params.spec:q} --states {params.states:q}"
        " --out {params.out:q} > {log:q} 2>&1"


use rule checkpoint as image_checkpoint with:
    output:
        multiext(
            "<results>/checkpoints/{model}/epoch{epoch}/",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
            "training.json",
        ),
    log:
        "<logs>/checkpoint/{model}/epoch{epoch}.log",
    benchmark:
        "<benchmarks>/checkpoint/{model}/epoch{epoch}.tsv"
    params:
        spec=lambda wildcards: as_json(
            training(wildcards.model) | {"checkpoints": [int(wildcards.epoch)]}
        ),
        states=subpath(input[0], parent=True),
        out=subpath(output[0], ancestor=2),
    message:
        "Keep epoch {wildcards.epoch} of {wildcards.model}"


# What numbers depend on. The facts of a model are apart: a corrected one measures nothing anew.
rule weights:
    input:
        trained_here,
    output:
        "<results>/weights/{model}/{checkpoint}.json",
    log:
        "<logs>/weights/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/weights/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **need(needs.record_needs, "model", "checkpoint"),
    params:
        spec=lambda wildcards: as_json(
            without_facts(study.model_spec(wildcards.model, wildcards.checkpoint))
        ),
        content=content_of_model,
    message:
        "Look up {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling model --spec {params.spec:q} --out {output:q} > {log:q} 2>&1"


rule model:
    input:
        "<results>/weights/{model}/{checkpoint}.json",
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
        mem_mb=scaled(1000),
        runtime=scaled(10),
    params:
        spec=lambda wildcards: as_json(
            study.model_spec(wildcards.model, wildcards.checkpoint)
        ),
        entries=subpath(output.entry, parent=True),
    message:
        "Record {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling model --spec {params.spec:q} --weights {input:q} --out {output.record:q}"
        " --entries {params.entries:q}"
        " --facet model={wildcards.model} --facet checkpoint={wildcards.checkpoint}"
        " > {log:q} 2>&1"
