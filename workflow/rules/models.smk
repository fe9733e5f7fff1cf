# Models trained here, and the records of all models.


rule train:
    input:
        settings=settled("train"),
    output:
        files("train"),
    log:
        "<logs>/train/{model}.log",
    benchmark:
        "<benchmarks>/train/{model}.tsv"
    # The longest training first: a run should not end with waiting for it.
    priority: lambda wildcards: sizes.parameters(study, wildcards.model)
    conda:
        ENVIRONMENT
    threads: cores("train")
    resources:
        **need("train"),
        # Not in params, which would restart a training: the choice of saved states changes no weights.
        kept=of(lab_options.kept_states),
    params:
        options=options_of("train"),
        # States to resume from, in a directory that no rule owns: Snakemake would clear it.
        states=subpath(output[0], parent=True),
    message:
        "Train {wildcards.model}"
    shell:
        "blockcoupling train {params.options} --states {params.states:q}"
        " {resources.kept} > {log:q} 2>&1"


# From the saved state of the training; a checkpoint that is added later is trained to.
rule checkpoint:
    input:
        trained="<results>/training/{model}/trained.json",
        settings=settled("checkpoint"),
    output:
        files("checkpoint"),
    log:
        "<logs>/checkpoint/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/checkpoint/{model}/{checkpoint}.tsv"
    wildcard_constraints:
        checkpoint="step[0-9]+",
    conda:
        ENVIRONMENT
    threads: cores("checkpoint")
    resources:
        **need("checkpoint"),
    params:
        options=options_of("checkpoint"),
        states=subpath(input.trained, parent=True),
        out=subpath(output[0], ancestor=2),
    message:
        "Keep {wildcards.checkpoint} of {wildcards.model}"
    shell:
        "blockcoupling train {params.options} --states {params.states:q}"
        " --out {params.out:q} > {log:q} 2>&1"


use rule checkpoint as image_checkpoint with:
    input:
        trained="<results>/training/{model}/trained.json",
        settings=settled("image_checkpoint"),
    output:
        files("image_checkpoint"),
    log:
        "<logs>/image_checkpoint/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/image_checkpoint/{model}/{checkpoint}.tsv"
    wildcard_constraints:
        checkpoint="epoch[0-9]+",


# What numbers depend on. The facts of a model are separate: correcting one reruns no measurement.
rule weights:
    input:
        of(inputs.training_record),
        settings=settled("weights"),
    output:
        files("weights"),
    log:
        "<logs>/weights/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/weights/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **need("weights"),
    params:
        options=options_of("weights"),
    message:
        "Look up {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling model {params.options} --out {output:q} > {log:q} 2>&1"


rule model:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        settings=settled("model"),
    output:
        **made("model"),
        entries=entries("model"),
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
        options=options_of("model"),
        entered=entered("model"),
    message:
        "Record {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling model {params.options} --weights {input.weights:q} --out {output.model:q}"
        " {params.entered} > {log:q} 2>&1"
