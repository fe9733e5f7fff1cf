from blockcoupling.figures import FIGURES
from blockcoupling.study.drawn import untrue_lists

# The set of figures depends on the numbers: the list names those that were drawn. Without a list they
# are drawn again, so a list that names a missing file is removed.
if inside_snakemake.in_main_process(workflow):
    for listed in untrue_lists(study):
        listed.unlink()


rule figures:
    input:
        catalog="<results>/catalog/statistics.yml",
        settings=settled("figures"),
    output:
        listed=files("figures"),
        figures=report(
            directory("<results>/figures/{modality}"),
            patterns=["{figure}.{format}"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{modality} models",
            labels={"figure": "{figure}", "format": "{format}"},
        ),
        entries=directory(f"<results>/{step('figures').entry_directory}"),
    log:
        "<logs>/figures/{modality}.log",
    benchmark:
        "<benchmarks>/figures/{modality}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(30),
    params:
        options=options_of("figures"),
        captions={name: figure.caption for name, figure in FIGURES.items()},
    message:
        "Draw the figures of {wildcards.modality} models"
    shell:
        "blockcoupling figures --catalog {input.catalog:q} --out {output.figures:q} {params.options}"
        " --entries {output.entries:q} --list {output.listed:q} > {log:q} 2>&1"


rule report:
    input:
        catalog="<results>/catalog/figures.yml",
        settings=settled("report"),
    output:
        report=report(
            made("report")["report"], caption="../report/report.rst", category="Report"
        ),
        findings=files("report"),
        entries=entries("report"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(30),
    params:
        options=options_of("report"),
        entered=entered("report"),
    message:
        "Write the report, {output.report}"
    shell:
        "blockcoupling report --catalog {input.catalog:q} --out {output.report:q}"
        " {params.options} {params.entered} > {log:q} 2>&1"
