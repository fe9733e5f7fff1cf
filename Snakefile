# `snakemake` typed here runs the study in config/config.yaml; `--configfile` names another one.
include: "workflow/Snakefile"
