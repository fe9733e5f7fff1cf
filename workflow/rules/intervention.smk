# Populations as the arms of an experiment, if the study defines them.


rule intervention:
    input:
        catalog="<results>/catalog/measurements.yml",
        settings=settled("intervention"),
    output:
        **made("intervention"),
        entries=entries("intervention"),
    log:
        "<logs>/intervention.log",
    benchmark:
        "<benchmarks>/intervention.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(60),
    params:
        options=options_of("intervention"),
        entered=entered("intervention"),
    message:
        "Compare the arms with the control"
    shell:
        "blockcoupling intervention --catalog {input.catalog:q} --out {output.intervention:q} {params.options}"
        " {params.entered} > {log:q} 2>&1"
