rule correlate:
    input:
        "<results>/catalog/measurements.yml",
    output:
        **{name: f"<results>/statistics/{name}.parquet" for name in STATISTICS},
        entries=expand("<entries>/{kind}.yml", kind=STATISTICS),
    log:
        "<logs>/correlate.log",
    benchmark:
        "<benchmarks>/correlate.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(60),
    params:
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=correlate_options(MODALITIES[0]),
    message:
        "Hold the measurements against the scores"
    shell:
        "blockcoupling correlate --catalog {input:q} --out {output.correlation:q} {params.options}"
        " --entries {params.entries:q} > {log:q} 2>&1"


# Where a study has language models and image models, these have statistics of their own.
use rule correlate as correlate_images with:
    output:
        **{
            name: f"<results>/statistics/of_images/{name}.parquet"
            for name in STATISTICS
        },
        entries=expand("<entries>/of_images/{kind}.yml", kind=STATISTICS),
    log:
        "<logs>/correlate_images.log",
    benchmark:
        "<benchmarks>/correlate_images.tsv"
    params:
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=correlate_options("image"),
    message:
        "Hold the measurements of image models against their scores"
