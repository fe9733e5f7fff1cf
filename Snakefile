# `snakemake` runs the study in config/config.yaml; `--configfile FILE` runs another one.
include: "workflow/Snakefile"


rule all:
    default_target: True
    input:
        everything(),
    localrule: True
    message:
        "Everything is there"
