# Time and memory of the study's jobs. Benchmark files exist once their jobs have ended, and no rule
# owns them: the catalog of all measurements is the input instead.


rule costs:
    input:
        catalog="<results>/catalog/measurements.yml",
        settings=settled("costs"),
    output:
        **made("costs"),
        entries=entries("costs"),
    log:
        "<logs>/costs.log",
    benchmark:
        "<benchmarks>/costs.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(2000),
        runtime=scaled(20),
    params:
        benchmarks=study.results / "benchmarks",
        entered=entered("costs"),
    message:
        "Tabulate what the jobs took"
    shell:
        "blockcoupling costs --benchmarks {params.benchmarks:q} --catalog {input.catalog:q}"
        " --out {output.costs:q} {params.entered} > {log:q} 2>&1"
