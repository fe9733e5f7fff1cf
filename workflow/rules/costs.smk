# What the jobs of the study took. Benchmark files are there once their jobs have ended, and no rule
# owns them: everything that was measured stands for them here.


rule costs:
    input:
        "<results>/catalog/measurements.yml",
    output:
        table="<results>/statistics/costs.parquet",
        entry="<entries>/costs.yml",
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
        entries=subpath(output.entry, parent=True),
    message:
        "Tabulate what the jobs took"
    shell:
        "blockcoupling costs --benchmarks {params.benchmarks:q} --catalog {input:q}"
        " --out {output.table:q} --entries {params.entries:q} > {log:q} 2>&1"
