# Power laws of each checkpoint's weights, if the study asks for them.


rule weight_spectra:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        settings=settled("weight_spectra"),
    output:
        **made("weight_spectra"),
        entries=entries("weight_spectra"),
    log:
        "<logs>/weight_spectra/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/weight_spectra/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    threads: cores("weight_spectra")
    resources:
        **need("weight_spectra"),
    params:
        entered=entered("weight_spectra"),
    message:
        "Spectra of the weights of {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling weight-spectra --model {input.weights:q} --out {output.weight_spectra:q}"
        " {params.entered} > {log:q} 2>&1"
