# `snakemake` runs the study in config/config.yaml; `--configfile FILE` runs another one.
include: "workflow/Snakefile"


rule all:
    default_target: True
    input:
        # "{results}/svd/{model}/{checkpoint}/{dataset}/svd.zarr/zarr.json" and so on: the results
        # of each step for every model × checkpoint × dataset of the study. Snakemake recreates a
        # missing file only if it is requested.
        [expand(outputs(row), zip, **jobs(row)) for row in steps() if row.result],
        study.catalog,
    localrule: True
    message:
        "Everything is there"
