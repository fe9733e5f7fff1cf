# Blocks left out, exchanged, replaced and merged, where the study asks for it.


rule damage:
    input:
        weights="<results>/weights/{model}/{checkpoint}.json",
        prompts="<results>/prompts/{dataset}.jsonl",
    output:
        store="<results>/damage/{model}/{checkpoint}/{dataset}/damage.zarr/zarr.json",
        table="<results>/tables/{model}/{checkpoint}/{dataset}/damage.parquet",
        entries=expand(
            "<entries>/{{model}}/{{checkpoint}}/{{dataset}}/{kind}.yml",
            kind=["block_damage", "damage"],
        ),
    log:
        "<logs>/damage/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "<benchmarks>/damage/{model}/{checkpoint}/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: cores(lab_needs.damage_needs, "model", "dataset", "checkpoint")
    resources:
        **need(lab_needs.damage_needs, "model", "dataset", "checkpoint"),
        device=study.damage.device if study.damage else study.extract.device,
    params:
        # Finished texts, in a directory that no rule owns: Snakemake would clear it.
        parts=f"{study.results}/damage_parts/{{model}}/{{checkpoint}}/{{dataset}}",
        store=subpath(output.store, parent=True),
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=damage_options,
    message:
        "Change blocks of {wildcards.model}, {wildcards.checkpoint}, on {wildcards.dataset}"
    shell:
        "blockcoupling damage --model {input.weights:q} --prompts {input.prompts:q}"
        " --parts {params.parts:q} --out {params.store:q} --table {output.table:q}"
        " {params.options} --device {resources.device:q} --entries {params.entries:q} --facet model={wildcards.model}"
        " --facet checkpoint={wildcards.checkpoint} --facet dataset={wildcards.dataset}"
        " > {log:q} 2>&1"


rule damage_statistics:
    input:
        "<results>/catalog/measurements.yml",
    output:
        **{name: f"<results>/statistics/{name}.parquet" for name in DAMAGE_STATISTICS},
        entries=expand("<entries>/{kind}.yml", kind=DAMAGE_STATISTICS),
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
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        options=damage_statistics_options(),
    message:
        "Hold the damage against coupling and its rivals"
    shell:
        "blockcoupling damage-statistics --catalog {input:q} --out {output.damage_statistics:q}"
        " {params.options} --entries {params.entries:q} > {log:q} 2>&1"
