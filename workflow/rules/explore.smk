# The explorer as one file, next to the report. It shows tables and stores, not figures: it does not
# wait for these.


rule explore:
    input:
        catalog="<results>/catalog/statistics.yml",
        settings=settled("explore"),
    output:
        explorer=report(
            made("explore")["explorer"],
            caption="../report/explorer.rst",
            category="Report",
        ),
        entries=entries("explore"),
    log:
        "<logs>/explore.log",
    benchmark:
        "<benchmarks>/explore.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(60),
    params:
        options=options_of("explore"),
        entered=entered("explore"),
    message:
        "Write the explorer, {output.explorer}"
    shell:
        "blockcoupling explore {input.catalog:q} --export {output.explorer:q}"
        " {params.options} {params.entered} > {log:q} 2>&1"
