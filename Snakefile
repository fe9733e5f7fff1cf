# `snakemake` runs the study in config/config.yaml; `--configfile FILE` runs another one.
include: "workflow/Snakefile"


rule all:
    default_target: True
    input:
        # "{results}/svd/{model}/{checkpoint}/{dataset}/svd.zarr/zarr.json" and so on: what each step
        # makes, for every model × checkpoint × dataset that the study has of it. Snakemake makes a
        # missing file again only if it is asked for.
        [expand(outputs(row), zip, **jobs(row)) for row in steps() if row.result],
        study.catalog,
    localrule: True
    message:
        "Everything is there"
