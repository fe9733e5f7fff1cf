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
