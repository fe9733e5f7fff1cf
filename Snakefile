# `snakemake` runs the study in config/config.yaml; `--configfile FILE` runs another one.
include: "workflow/Snakefile"


rule all:
    default_target: True
    input:
        study.catalog,
        "<results>/report.html",
    localrule: True
