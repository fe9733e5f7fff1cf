rule figure:
    input:
        "<results>/catalog/statistics.yml",
    output:
        pictures=report(
            expand(
                "<results>/figures/{{figure}}.{format}", format=study.figures.formats
            ),
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        entries=expand(
            "<entries>/figures/{{figure}}.{format}.yml", format=study.figures.formats
        ),
    log:
        "<logs>/figure/{figure}.log",
    benchmark:
        "<benchmarks>/figure/{figure}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=scaled(3000),
        runtime=scaled(30),
    params:
        stem=f"{study.results}/figures/{{figure}}",
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        formats=flags(
            format=study.figures.formats, modality=MODALITIES[0] if MIXED else None
        ),
        caption=lambda wildcards: FIGURES[wildcards.figure].caption,
    message:
        "Draw {wildcards.figure}"
    shell:
        "blockcoupling figure {wildcards.figure} --catalog {input:q} --out {params.stem:q}"
        " {params.formats} --entries {params.entries:q} > {log:q} 2>&1"


use rule figure as figure_of_images with:
    output:
        pictures=report(
            expand(
                "<results>/figures/of_images/{{figure}}.{format}",
                format=study.figures.formats,
            ),
            caption="../report/figure.rst",
            category="Figures of image models",
            labels={"figure": "{figure}"},
        ),
        entries=expand(
            "<entries>/figures/of_images/{{figure}}.{format}.yml",
            format=study.figures.formats,
        ),
    log:
        "<logs>/figure_of_images/{figure}.log",
    benchmark:
        "<benchmarks>/figure_of_images/{figure}.tsv"
    params:
        stem=f"{study.results}/figures/of_images/{{figure}}",
        entries=lambda wildcards, output: Path(output.entries[0]).parent,
        formats=flags(format=study.figures.formats, modality="image"),
        caption=lambda wildcards: FIGURES[wildcards.figure].caption,
    message:
        "Draw {wildcards.figure} of the image models"


rule report:
    input:
        "<results>/catalog/figures.yml",
    output:
        report=report(
            "<results>/report.html", caption="../report/report.rst", category="Report"
        ),
        entry="<entries>/report.yml",
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
        entries=subpath(output.entry, parent=True),
        options=flags(
            title=f"Block coupling: {study.study}", final_catalog=study.catalog
        ),
    message:
        "Write the report, {output.report}"
    shell:
        "blockcoupling report --catalog {input:q} --out {output.report:q}"
        " {params.options} --entries {params.entries:q} > {log:q} 2>&1"
