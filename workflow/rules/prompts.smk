# Prompts are collected again if they, or the file that they were made from, are not as they were.
if inside_snakemake.in_main_process(workflow) and not running():
    for changed in inputs.changed_prompts(study, settled("prompts")):
        logger.info(f"{changed} is made again: it or its source has changed")
        changed.unlink()


rule prompts:
    input:
        settings=settled("prompts"),
    output:
        **made("prompts"),
        entries=entries("prompts"),
    log:
        "<logs>/prompts/{dataset}.log",
    benchmark:
        "<benchmarks>/prompts/{dataset}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(1500),
        runtime=scaled(20),
    params:
        options=options_of("prompts"),
        entered=entered("prompts"),
    message:
        "Collect the prompts of {wildcards.dataset}"
    shell:
        "blockcoupling prompts {params.options} --out {output.prompts:q}"
        " {params.entered} > {log:q} 2>&1"
