# Blocks ablated, exchanged, replaced and merged, if the study asks for it.


rule damage:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        prompts="<results>/prompts/{dataset}.jsonl",
        settings=settled("damage"),
    output:
        **made("damage"),
        entries=entries("damage"),
    log:
        "<logs>/damage/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/damage/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores("damage")
    resources:
        **need("damage"),
        device=(study.damage or study.extract).device,
    params:
        parts=f"{study.results}/{step('damage').parts}",
        store=subpath(output.block_damage, parent=True),
        options=options_of("damage"),
        entered=entered("damage"),
    message:
        "Ablate blocks of {wildcards.model}, {wildcards.checkpoint}, on {wildcards.dataset}"
    shell:
        "blockcoupling damage --model {input.weights:q} --prompts {input.prompts:q}"
        " --parts {params.parts:q} --out {params.store:q} --table {output.damage:q}"
        " {params.options} --device {resources.device:q} {params.entered} > {log:q} 2>&1"


rule damage_statistics:
    input:
        catalog="<results>/catalog/measurements.yml",
        settings=settled("damage_statistics"),
    output:
        **made("damage_statistics"),
        entries=entries("damage_statistics"),
    log:
        "<logs>/damage_statistics.log",
    benchmark:
        "<benchmarks>/damage_statistics.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(60),
    params:
        options=options_of("damage_statistics"),
        entered=entered("damage_statistics"),
    message:
        "Compare ablation damage with coupling and its baselines"
    shell:
        "blockcoupling damage-statistics --catalog {input.catalog:q} --out {output.damage_statistics:q} {params.options}"
        " {params.entered} > {log:q} 2>&1"
