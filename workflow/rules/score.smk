rule score:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        settings=settled("score"),
    output:
        **made("score"),
        entries=entries("score"),
    log:
        "<logs>/score/{model}/{checkpoint}.log",
    benchmark:
        "<benchmarks>/score/{model}/{checkpoint}.tsv"
    conda:
        ENVIRONMENT
    threads: cores("score")
    resources:
        **need("score"),
        device=study.extract.device,
    params:
        options=options_of("score"),
        # Scores of this checkpoint, in a directory that no rule owns: Snakemake would clear it.
        kept=f"{study.results}/kept_scores/{{model}}/{{checkpoint}}",
        entered=entered("score"),
    message:
        "Score {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling score --model {input.weights:q} {params.options} --out {output.score:q}"
        " --kept {params.kept:q} --device {resources.device:q} {params.entered} > {log:q} 2>&1"
