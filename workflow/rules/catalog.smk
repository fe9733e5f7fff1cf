# The catalog is built from scratch out of entry files, each time one of them changes: of what was
# measured, for correlating; with the statistics, for figures; with those, for the report; of all.
# Each takes up the one before: a study's thousands of entries are inputs of one job, not of four.


localrules:
    catalog_measurements,
    catalog_statistics,
    catalog_figures,
    catalog,


rule catalog_measurements:
    input:
        measured_entries(),
    output:
        "<results>/catalog/measurements.yml",
    log:
        "<logs>/catalog/measurements.log",
    benchmark:
        "<benchmarks>/catalog/measurements.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(1000),
        runtime=scaled(10),
        # For who reads the catalog. Where it lies changes no result: it is not among the parameters.
        configuration=os.path.relpath(CONFIGURED_IN[0]),
    params:
        owner=flags(study=study.study, results=study.results),
    message:
        "Catalog what was measured"
    # The list of files is piped: on a command line it might be too long.
    shell:
        "printf '%s\\n' {input:q} | blockcoupling catalog --entries-from - --out {output:q}"
        " {params.owner} --configuration {resources.configuration:q} > {log:q} 2>&1"


use rule catalog_measurements as catalog_statistics with:
    input:
        "<results>/catalog/measurements.yml",
        statistics_entries(),
        "<entries>/costs.yml",
    output:
        "<results>/catalog/statistics.yml",
    log:
        "<logs>/catalog/statistics.log",
    benchmark:
        "<benchmarks>/catalog/statistics.tsv"
    message:
        "Catalog the statistics too"


use rule catalog_measurements as catalog_figures with:
    input:
        "<results>/catalog/statistics.yml",
        figure_entries(),
    output:
        "<results>/catalog/figures.yml",
    log:
        "<logs>/catalog/figures.log",
    benchmark:
        "<benchmarks>/catalog/figures.tsv"
    message:
        "Catalog the figures too"


use rule catalog_measurements as catalog with:
    input:
        "<results>/catalog/figures.yml",
        "<entries>/report.yml",
    output:
        study.catalog,
    log:
        "<logs>/catalog/catalog.log",
    benchmark:
        "<benchmarks>/catalog/catalog.tsv"
    message:
        "Write the catalog, {output}"
