"""One HTML file that shows a whole study: tables, figures, statistics, where they came from.

Pictures and style are inside the file; it fetches nothing and can be mailed or archived as it is.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import blockcoupling
from blockcoupling.atomic import replacing
from blockcoupling.catalog.trust import Place
from blockcoupling.errors import UserError
from blockcoupling.figures import FIGURES
from blockcoupling.statistics.costs import by_rule
from blockcoupling.statistics.points import CHECKPOINT
from blockcoupling.statistics.predictors import LABELS, MEASURES, of_kind
from blockcoupling.statistics.scores import read_scores
from blockcoupling.wording import (
    MISSING,
    count,
    duration,
    interval,
    number,
    p_value,
    significant,
    with_error,
)

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_IDENTITY = ("model", "checkpoint", "dataset")
_SHOWN = [each.name for each in of_kind("coupling", "trajectory")]


@dataclass(frozen=True)
class Table:
    """Text, ready to be set as a table; `words` names the columns that are not numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = field(default=())
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI, with its size in CSS pixels where the format tells it."""

    name: str
    title: str
    caption: str
    source: str
    width: int | None = None
    height: int | None = None


def write_report(
    catalog: Catalog,
    out: str | Path,
    *,
    title: str = "Block coupling",
    catalog_path: str = "catalog/catalog.yml",
) -> None:
    """Write the report of a study.

    Args:
        catalog: has entries of the kinds model, prompts, score, predictors, correlation, variance,
            figure (png or svg), and svd; costs are shown where there are any.
        out: the HTML file.
        title: its heading.
        catalog_path: what the loading example opens.

    Raises:
        UserError: an entry is missing from the catalog.

    """
    html = render(catalog, title=title, catalog_path=catalog_path)
    with replacing(out) as fresh:
        fresh.write_text(html, encoding="utf-8")


def render(
    catalog: Catalog,
    *,
    title: str = "Block coupling",
    catalog_path: str = "catalog/catalog.yml",
) -> str:
    """Return the report as text; the same catalog makes the same text. See :func:`write_report`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("blockcoupling.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    points = catalog.one(kind="predictors").read()
    correlation = catalog.one(kind="correlation").read()
    scores = read_scores(catalog)
    k, variant = points["k"].iloc[0], points["variant"].iloc[0]
    points = points.sort_values(["parameters", "model", "step"])
    ends = points[points["untrained"] | points["final"]]
    attributes = _attributes(catalog, points)
    overview = [
        ("models", str(points["model"].nunique())),
        ("checkpoints", str(len(points))),
        ("datasets", str(len(catalog.search(kind="prompts")))),
        ("prompts per checkpoint", _range(points["prompts"])),
        ("artifacts in the catalog", str(len(catalog))),
    ]
    shown = correlation[correlation["headline"]]
    main = shown[shown["subset_kind"] == "checkpoints"]
    return environment.get_template("report.html.j2").render(
        title=title,
        version=blockcoupling.__version__,
        settings=f"variant {_words(variant)}, K = {k}",
        overview=overview,
        measured=_measurements(ends, scores, "Untrained and final checkpoints"),
        measured_all=(
            _measurements(points, scores, f"All {len(points)} checkpoints")
            if len(points) > len(ends)
            else None
        ),
        figures=pictures(catalog),
        findings=findings(main),
        compared=_compared(main),
        correlation=_correlation(shown),
        variance=_variance(catalog.one(kind="variance").read()),
        costs=_costs(catalog),
        models=_models(catalog),
        prompts=_prompts(catalog),
        provenance=_provenance(attributes, catalog, correlation),
        stores=_stores(attributes),
        scores=_scores(scores),
        snippet=snippet(catalog, ends.iloc[-1], catalog_path),
    )


# --------------------------------------------------------------------------------------- figures


def pictures(catalog: Catalog) -> list[Picture]:
    """Return the figures of the catalog, in the order of :data:`blockcoupling.figures.FIGURES`.

    Raises:
        UserError: there is none as png or svg.

    """
    usable = catalog.search(kind="figure")
    usable = usable.search(format=["png", "svg"]) if len(usable) else usable
    found = {str(usable[name].metadata["figure"]) for name in usable}
    if not found:
        raise UserError("the report needs figures as png or svg (figures.formats), and has none")
    order = [*(name for name in FIGURES if name in found), *sorted(found - FIGURES.keys())]
    return [_picture(usable, name) for name in order]


def _picture(catalog: Catalog, name: str) -> Picture:
    formats = catalog.search(figure=name)
    entry = next(iter(formats.search(format="png")), None) or next(iter(formats))
    content: bytes = catalog[entry].read()
    described = FIGURES.get(name)
    title = described.title if described else _words(name)
    caption = described.caption if described else ""
    if catalog[entry].metadata["format"] == "svg":
        return Picture(name, title, caption, _data_uri("image/svg+xml", content))
    # PNG: width and height stand in the header. Drawn at 200 dots per inch, shown at about 100.
    width, height = struct.unpack(">II", content[16:24])
    source = _data_uri("image/png", content)
    return Picture(name, title, caption, source, width // 2, height // 2)


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


# ---------------------------------------------------------------------------------------- tables

_ERRORS = (
    "± one standard error: of measurements, over prompts (their datasets being given); of scores, "
    "as the evaluation reports it."
)
_CORRECTIONS = {"holm": "Holm", "fdr_bh": "Benjamini and Hochberg"}


def _measurements(points: pd.DataFrame, scores: pd.DataFrame, title: str) -> Table:
    metrics = scores[["score", "metric"]].drop_duplicates().sort_values(["score", "metric"])
    names = [(str(score), str(metric)) for score, metric in metrics.to_numpy()]
    keys = zip(*(scores[name] for name in [*CHECKPOINT, "score", "metric"]), strict=True)
    known = dict(
        zip(keys, zip(scores["value"], scores["standard_error"], strict=True), strict=True)
    )
    rows = []
    for row in points.to_dict("records"):
        cells = [row["model"], row["checkpoint"]]
        cells += [with_error(row[name], row[f"{name}_se"]) for name in _SHOWN]
        for score, metric in names:
            key = (row["model"], row["checkpoint"], score, metric)
            cells.append(with_error(*known.get(key, (None, None))))
        rows.append(cells)
    labels = [MEASURES[name] for name in _SHOWN]
    labels += [_words(f"{score} {metric}") for score, metric in names]
    columns = ["model", "checkpoint", *labels]
    return Table(f"{title}; {_ERRORS}", columns, rows, ["model", "checkpoint"], title)


def _compared(main: pd.DataFrame) -> list[Table]:
    """Set the predictors of one score below each other, the choices of checkpoints side by side."""
    tables = []
    for (score, metric), own in main.groupby(["score", "metric"]):
        subsets = own["subset"].drop_duplicates().tolist()
        cells: dict[str, dict[str, list[str]]] = {}
        for row in own.to_dict("records"):
            r2 = f"{number(row['r2'])} {interval(row['r2_low'], row['r2_high'])}"
            cells.setdefault(row["predictor"], {})[row["subset"]] = [
                r2.removesuffix(f" {MISSING}"),
                p_value(row["pearson_p_adjusted"]),
            ]
        nothing = [MISSING, MISSING]
        rows = [
            [LABELS.get(name, name), *(c for each in subsets for c in by.get(each, nothing))]
            for name, by in cells.items()
        ]
        sizes = own.groupby("subset")["n"].max()
        columns = ["predictor"]
        for each in subsets:
            columns += [f"{each}, n = {sizes[each]}: R²", "adjusted p"]
        first = own.iloc[0]
        caption = (
            f"Predictors of {_words(f'{score} {metric}')}: R² alone, with a 95 % interval from "
            f"{first['resamples']} bootstrap resamples of whole models, and p adjusted for the "
            f"number of predictors ({_CORRECTIONS[first['correction']]})."
        )
        tables.append(Table(caption, columns, rows, ["predictor"]))
    return tables


def _correlation(table: pd.DataFrame) -> list[Table]:
    """Return every number, a table per score."""
    columns = ["points", "predictor", "n", "slope", "R²", "interval", "r", "p", "adjusted p"]
    columns += ["ρ", "p of ρ", "partial r", "p of partial r", "note"]
    caption = (
        "Slope, R² with its interval, Pearson's r, Spearman's ρ, and r with parameters, depth, "
        "dimension and training tokens held fixed, as far as they are known and vary."
    )
    tables = []
    for (score, metric), own in table.groupby(["score", "metric"]):
        rows = [
            [
                row["subset"],
                LABELS.get(row["predictor"], row["predictor"]),
                str(row["n"]),
                significant(row["slope"]),
                number(row["r2"]),
                interval(row["r2_low"], row["r2_high"]),
                number(row["pearson"]),
                p_value(row["pearson_p"]),
                p_value(row["pearson_p_adjusted"]),
                number(row["spearman"]),
                p_value(row["spearman_p"]),
                number(row["partial"]),
                p_value(row["partial_p"]),
                row["note"],
            ]
            for row in own.to_dict("records")
        ]
        title = f"{_words(f'{score} {metric}')}: all {len(own)} comparisons"
        words = ["points", "predictor", "note"]
        tables.append(Table(caption, columns, rows, words, title[0].upper() + title[1:]))
    return tables


def findings(main: pd.DataFrame) -> list[str]:
    """Say in words how coupling goes with each score, and how much that is worth."""
    sentences = []
    for row in main[main["predictor"] == "coupling"].to_dict("records"):
        score = _words(f"{row['score']} {row['metric']}")
        what = f"Coupling against {score}, {row['subset']} (n = {row['n']})"
        if pd.isna(row["r2"]):
            sentences.append(f"{what}: {row['note']}.")
            continue
        stronger = (row["pearson"] > 0) == row["higher_is_better"]
        text = f"{what}: R² = {number(row['r2'])}"
        if pd.notna(row["r2_low"]):
            text += f", 95 % interval {interval(row['r2_low'], row['r2_high'])}"
        if pd.notna(row["pearson_p"]):
            text += f", p = {p_value(row['pearson_p'])}".replace("= <", "<")
        text += f"; stronger coupling goes with the {'better' if stronger else 'worse'} score."
        if row["note"]:
            text += f" ({row['note']}.)"
        sentences.append(text)
    return sentences


def _variance(table: pd.DataFrame) -> Table:
    parts = list(table["component"].drop_duplicates())
    levels = table.drop_duplicates("component").set_index("component")["levels"]
    rows = []
    for measure, label in MEASURES.items():
        own = table[table["measure"] == measure].set_index("component")
        if own.empty:
            continue
        shares = [f"{own['share'][c]:.0%}" if pd.notna(own["share"][c]) else MISSING for c in parts]
        rows.append([label, *shares])
    columns = [f"{c} ({levels[c]})" if c != "residual" else c for c in parts]
    caption = (
        "Shares of the variance of the final checkpoints' measurements: between models, datasets, "
        "prompts of a dataset, models' different response to datasets (random effects, Henderson's "
        "method I; 0 % may be an estimate below 0). In brackets, how many of each: with few models "
        "or datasets their share is a rough guess."
    )
    return Table(caption, ["measure", *columns], rows, ["measure"])


def _costs(catalog: Catalog) -> list[Table]:
    """What the jobs took: of each step, then of each step and model. None where it is not known."""
    if not len(catalog.search(kind="costs")):
        return []
    table = catalog.one(kind="costs").read()
    if table.empty:
        return []
    caption = (
        "What the jobs of each step took, one after another; CPU time is that of all threads, "
        "memory the most that a job had resident at once. A job that was killed and run again "
        "counts its last run."
    )
    models = table[table["model"].notna()]
    return [
        Table(caption, ["step", *_COSTS], _cost_rows(by_rule(table)), ["step"]),
        Table(
            "The same for each model.",
            ["step", "model", *_COSTS],
            _cost_rows(by_rule(models, "model")),
            ["step", "model"],
            "By step and model",
        ),
    ]


_COSTS = ["jobs", "total time", "CPU time", "longest job", "seconds a prompt", "peak memory/MB"]


def _cost_rows(summed: pd.DataFrame) -> list[list[str]]:
    return [
        [
            *(str(row[name]) for name in ("rule", "model") if name in row),
            str(row["jobs"]),
            duration(row["seconds"]),
            duration(row["cpu_seconds"]),
            duration(row["longest"]),
            significant(row["seconds_per_prompt"]),
            number(row["max_rss_mb"], 0),
        ]
        for row in summed.to_dict("records")
    ]


def _models(catalog: Catalog) -> Table:
    points = catalog.one(kind="predictors").read().sort_values(["parameters", "model", "step"])
    records = catalog.search(kind="model").frame()
    places = records.set_index(["name", "checkpoint"])
    rows = []
    for model, own in points.groupby("model", sort=False):
        last = own.iloc[-1]
        record = places.loc[(model, last["checkpoint"])]
        place = next((record[key] for key in ("id", "source") if pd.notna(record.get(key))), None)
        rows.append(
            [
                str(model),
                _text(last["family"]),
                _text(record.get("architecture")),
                count(last["parameters"]),
                number(last["depth"], 0),
                number(last["dimension"], 0),
                count(own["tokens"].max()),
                _listed(own["checkpoint"]),
                _text(place),
            ]
        )
    columns = ["model", "family", "architecture", "parameters", "L", "d", "training tokens"]
    columns += ["checkpoints", "from"]
    words = ["model", "family", "architecture", "checkpoints", "from"]
    return Table("Models, the smallest first.", columns, rows, words)


def _prompts(catalog: Catalog) -> Table:
    rows = []
    found = catalog.search(kind="prompts")
    for name in found:
        content = found[name].read()
        lengths = content["text"].str.len()
        rows.append(
            [
                str(found[name].metadata.get("dataset", name)),
                str(len(content)),
                f"{lengths.min()} to {lengths.max()}",
                _shortened(content["text"].iloc[0]),
            ]
        )
    columns = ["dataset", "prompts", "characters", "the first one"]
    return Table("Prompts.", columns, rows, ["dataset", "the first one"])


def _scores(scores: pd.DataFrame) -> Table:
    sources = scores.groupby(["score", "metric", "source", "n"], dropna=False).size()
    rows = [
        [
            row["score"],
            _words(row["metric"]),
            count(row["n"] or None),
            str(row["of"]),
            _text(row["source"]),
        ]
        for row in sources.rename("of").reset_index().to_dict("records")
    ]
    columns = ["score", "metric", "n", "checkpoints", "source"]
    return Table("Where scores come from.", columns, rows, ["score", "metric", "source"])


# ------------------------------------------------------------------------------------ provenance


def _attributes(catalog: Catalog, points: pd.DataFrame) -> pd.DataFrame:
    """Return the attributes of one extraction store per model, of its last checkpoint."""
    rows = []
    for model, own in points.groupby("model", sort=False):
        stores = catalog.search(kind="svd", model=str(model), checkpoint=own["checkpoint"].iloc[-1])
        if len(stores):
            attributes = stores[next(iter(stores))].read().attrs
            rows.append(
                {"model": model, **{k: v for k, v in attributes.items() if k not in _IDENTITY}}
            )
    return pd.DataFrame(rows).map(
        lambda value: "none" if pd.isna(value) or value == "" else str(value)
    )


def _provenance(
    attributes: pd.DataFrame, catalog: Catalog, correlation: pd.DataFrame
) -> list[tuple[str, str]]:
    same = [name for name in _about(attributes) if attributes[name].nunique() == 1]
    listed = [(_words(name), str(attributes[name].iloc[0])) for name in sorted(same)]
    for row in correlation.head(1).to_dict("records"):
        listed += [
            ("bootstrap", f"{row['resamples']} resamples, seed {row['seed']}"),
            ("correction for multiple comparisons", _CORRECTIONS[row["correction"]]),
        ]
    makers = ", ".join(map(str, catalog.facets().get("created_by", [])))
    return [*listed, ("catalog entries made by", makers)]


def _stores(attributes: pd.DataFrame) -> Table | None:
    """Return what differs between the models' stores."""
    differing = [name for name in _about(attributes) if attributes[name].nunique() > 1]
    if not differing:
        return None
    rows = attributes[["model", *differing]].to_numpy().tolist()
    columns = ["model", *map(_words, differing)]
    return Table("How each model was measured, where they differ.", columns, rows, columns)


def _about(attributes: pd.DataFrame) -> list[str]:
    return [str(name) for name in attributes.columns if name != "model"]


def snippet(catalog: Catalog, point: pd.Series, catalog_path: str) -> str:
    """Return Python code that loads what was measured on the checkpoint of a point."""
    own = catalog.search(kind="miscoupling", model=point["model"], checkpoint=point["checkpoint"])
    name = next(iter(own))
    # Results may lie on another disk than the catalog.
    beside = Place.around(catalog_path).holds(str(catalog.path(name)))
    opened = f'"{catalog_path}"' if beside else f'"{catalog_path}", allow_outside=True'
    return f"""import blockcoupling as bc

catalog = bc.open_catalog({opened})
print(catalog)             # what there is
print(catalog.facets())    # what to search by

# One row per checkpoint (pandas).
points = catalog.one(kind="predictors").read()

# One row per prompt, variant and K, of all checkpoints of a model.
coupling = catalog.search(kind="coupling", model="{point["model"]}").frame()

# Block by block (xarray, lazy).
matrices = catalog["{name}"].read()
"""


# -------------------------------------------------------------------------------------- plumbing


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _listed(names: pd.Series) -> str:
    if len(names) <= 8:
        return ", ".join(names)
    return f"{names.iloc[0]}, {names.iloc[1]} … {names.iloc[-1]} ({len(names)})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    return MISSING if value is None or pd.isna(value) or value == "" else str(value)


def _shortened(text: str, length: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
