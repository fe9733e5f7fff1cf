# Power laws of each checkpoint's weights, where the study asks for them.


rule weight_spectra:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
    output:
        table="<results>/weight_spectra/{model}/{checkpoint}.parquet",
        entry="<entries>/{model}/{checkpoint}/weight_spectra.yml",
    log:
        "<logs>/weight_spectra/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/weight_spectra/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(needs.weight_spectra_needs, "model", "checkpoint")
    resources:
        **need(needs.weight_spectra_needs, "model", "checkpoint"),
    params:
        entries=subpath(output.entry, parent=True),
    message:
        "Spectra of the weights of {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling weight-spectra --model {input.weights:q} --out {output.table:q}"
        " --entries {params.entries:q}"
        " --facet model={wildcards.model} --facet checkpoint={wildcards.checkpoint}"
        " > {log:q} 2>&1"
