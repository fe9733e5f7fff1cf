# The catalog is rebuilt from entry files whenever one of them changes, in four stages: measurements
# (for correlating), statistics (for figures), figures (for the report), and everything. Each stage
# includes the one before: a study's thousands of entries are inputs of one job, not of four.


localrules:
    catalog_measurements,
    catalog_statistics,
    catalog_figures,
    catalog,


rule catalog_measurements:
    input:
        entries=inputs.entries_since(study, "catalog_measurements"),
        settings=settled("catalog_measurements"),
    output:
        files("catalog_measurements"),
    log:
        "<logs>/catalog/measurements.log",
    benchmark:
        "<benchmarks>/catalog/measurements.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(1000),
        runtime=scaled(10),
        # For readers of the catalog. Its path changes no result: it is not among the parameters.
        configuration=os.path.relpath(CONFIGURED_IN[0]),
        command=AGAIN,
    params:
        options=options_of("catalog"),
    message:
        "Catalog what was measured"
    # The list of files is piped: on a command line it might be too long.
    shell:
        "printf '%s\\n' {input.entries:q} | blockcoupling catalog --entries-from - --out {output:q}"
        " {params.options} --configuration {resources.configuration:q} --command {resources.command:q} > {log:q} 2>&1"


use rule catalog_measurements as catalog_statistics with:
    input:
        entries=[
            "<results>/catalog/measurements.yml",
            *inputs.entries_since(study, "catalog_statistics"),
        ],
        settings=settled("catalog_statistics"),
    output:
        files("catalog_statistics"),
    log:
        "<logs>/catalog/statistics.log",
    benchmark:
        "<benchmarks>/catalog/statistics.tsv"
    message:
        "Catalog the statistics too"


# The number of figures is known only after they are drawn.
rule catalog_figures:
    input:
        catalog="<results>/catalog/statistics.yml",
        lists=expand(files("figures"), modality=study.modalities()),
        entries=expand(
            f"<results>/{step('figures').entry_directory}", modality=study.modalities()
        ),
        settings=settled("catalog_figures"),
    output:
        files("catalog_figures"),
    log:
        "<logs>/catalog/figures.log",
    benchmark:
        "<benchmarks>/catalog/figures.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(1000),
        runtime=scaled(10),
        configuration=os.path.relpath(CONFIGURED_IN[0]),
        command=AGAIN,
    params:
        options=options_of("catalog"),
    message:
        "Catalog the figures too"
    shell:
        "(echo {input.catalog:q}; find {input.entries:q} -name '*.yml') |"
        " blockcoupling catalog --entries-from - --out {output:q} {params.options}"
        " --configuration {resources.configuration:q} --command {resources.command:q} > {log:q} 2>&1"


use rule catalog_measurements as catalog with:
    input:
        entries=[
            "<results>/catalog/figures.yml",
            *inputs.entries_since(study, "catalog"),
        ],
        settings=settled("catalog"),
    output:
        study.catalog,
    log:
        "<logs>/catalog/catalog.log",
    benchmark:
        "<benchmarks>/catalog/catalog.tsv"
    message:
        "Write the catalog, {output}"
