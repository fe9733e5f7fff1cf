# Populations as the arms of an experiment, where the study says which is what.


rule intervention:
    input:
        "<results>/catalog/measurements.yml",
    output:
        **{
            name: f"<results>/statistics/{name}.parquet"
            for name in INTERVENTION_STATISTICS
        },
        entries=expand("<entries>/{kind}.yml", kind=INTERVENTION_STATISTICS),
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
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=intervention_options(),
    message:
        "Hold the arms against the control"
    shell:
        "blockcoupling intervention --catalog {input:q} --out {output.intervention:q}"
        " {params.options} --entries {params.entries:q} > {log:q} 2>&1"
