# Jacobians of a prompt's tokens compared with each other, if the study asks for it.


rule tokenwise:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        prompts="<results>/prompts/{dataset}.jsonl",
        settings=settled("tokenwise"),
    output:
        **made("tokenwise"),
        entries=entries("tokenwise"),
    log:
        "<logs>/tokenwise/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/tokenwise/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores("tokenwise")
    resources:
        **need("tokenwise"),
        device=(study.tokenwise or study.extract).device,
    params:
        parts=f"{study.results}/{step('tokenwise').parts}",
        store=subpath(output.token_products, parent=True),
        options=options_of("tokenwise"),
        entered=entered("tokenwise"),
    message:
        "Compare the tokens of {wildcards.dataset} in {wildcards.model}, {wildcards.checkpoint}"
    shell:
        "blockcoupling tokenwise --model {input.weights:q} --prompts {input.prompts:q}"
        " --parts {params.parts:q} --out {params.store:q} --table {output.tokenwise:q}"
        " {params.options} --device {resources.device:q} {params.entered} > {log:q} 2>&1"
