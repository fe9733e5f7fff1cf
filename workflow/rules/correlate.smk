# Language models and image models of a study have separate statistics.


rule correlate:
    input:
        catalog="<results>/catalog/measurements.yml",
        settings=settled("correlate"),
    output:
        **made("correlate"),
        entries=entries("correlate"),
    log:
        "<logs>/correlate/{modality}.log",
    benchmark:
        "<benchmarks>/correlate/{modality}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(60),
    params:
        options=options_of("correlate"),
        entered=entered("correlate"),
    message:
        "Correlate the measurements of {wildcards.modality} models with their scores"
    shell:
        "blockcoupling correlate --catalog {input.catalog:q} --out {output.correlation:q} {params.options}"
        " {params.entered} > {log:q} 2>&1"
