# Prompts that are not as their job wrote them are collected again, not measured.
if inside_snakemake.in_main_process(workflow) and not running():
    for changed in inputs.changed_prompts(study):
        logger.warning(
            f"{changed} was changed or damaged in the results; it is made again"
        )
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
