"""The report: one file with the study's numbers and figures, shown by a browser without fault."""

import json
import re
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blockcoupling.catalog import Catalog, join, open_catalog, write_entry
from blockcoupling.errors import UserError
from blockcoupling.figures import FIGURES, draw, save
from blockcoupling.report.correlated import findings
from blockcoupling.report.page import render, write_report
from blockcoupling.statistics.write import write_statistics
from blockcoupling.wording import with_error

DRAWN = ("emergence", "correlation")
HEADINGS = ("model", "predictor", "points", "measure", "dataset", "score", "comparison")


@pytest.fixture(scope="module")
def illustrated(analysed: Catalog, tmp_path_factory) -> Catalog:
    """Return the study with two figures; the others are tested by themselves."""
    root = Path(analysed.path("predictors")).parents[1]
    folder = tmp_path_factory.mktemp("figures")
    entries = list((root / "entries").glob("*.yml"))
    for name in DRAWN:
        for path in save(draw(name, analysed), folder / name, ("png", "pdf")):
            entry = folder / "entries" / f"{path.name}.yml"
            write_entry(entry, "figure", path, {"figure": name, "format": path.suffix[1:]})
            entries.append(entry)
    return join(entries, folder / "catalog.yml")


@pytest.fixture(scope="module")
def file(illustrated: Catalog, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(illustrated, path)
    return path


class Reader(HTMLParser):
    """Collects what the tests ask for: references, tables as rows of cells, ids, running text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.references += [given[name] for name in ("src", "href", "srcset") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def page(file: Path) -> Reader:
    return Reader(file.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_nothing_is_fetched(file, page):
    assert all(ref.startswith(("data:", "#")) for ref in page.references)
    html = file.read_text(encoding="utf-8")
    assert not re.search(r"<script|@import|url\(|https?://", html)


def test_every_tag_is_closed_and_every_link_has_its_target(page):
    assert page.open == []
    anchors = [ref[1:] for ref in page.references if ref.startswith("#")]
    assert anchors
    assert set(anchors) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_every_row_has_a_cell_for_every_column(page):
    width = 0
    for row in page.rows:
        if row[0] in HEADINGS:
            width = len(row)
        assert len(row) == width


def test_figures_are_those_of_the_catalog(illustrated, page):
    images = [ref for ref in page.references if ref.startswith("data:image/png")]
    contents = [b64decode(image.partition(",")[2]) for image in images]
    assert contents == [illustrated[f"figure/{name}/png"].read() for name in DRAWN]
    for name in DRAWN:
        assert FIGURES[name].caption in page.text


def test_numbers_are_those_of_the_tables(illustrated, page):
    points = illustrated.one(kind="predictors").read()
    row = points.query("model == 'neox-96' and checkpoint == 'step600'").squeeze()
    shown = [cells for cells in page.rows if cells[:2] == ["neox-96", "step600"]]
    assert len(shown) == 2  # among the final ones, and among all
    assert shown[0][2] == with_error(row["coupling"], row["coupling_se"])
    assert [cells[-1] for cells in shown] == [with_error(row["heldout.loss"], 0.01)] * 2
    every = {tuple(cells[:2]) for cells in page.rows if re.fullmatch(r"step\d+", cells[1])}
    assert len(every) == 18


def test_the_page_opens_with_the_answer_in_eight_lines(file, illustrated):
    html = file.read_text(encoding="utf-8")
    opening = html[html.index("<h1>") : html.index("<section")]
    lines = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", opening)
    assert [question for question, _ in lines] == [
        *("Measured", "Above chance?", "Correlates with?", "Also found", "Also found"),
        *("How sure?", "Next"),
    ]
    findings_file = file.with_name("findings.txt").read_text(encoding="utf-8").splitlines()
    assert len(findings_file) == 3
    for line in findings_file:
        text = line.partition(": ")[2].replace(" = ", "\u00a0=\u00a0")
        assert text in unescape(opening)
    without_notes = re.sub(r'<ol class="notes">.*?</ol>', "", html, flags=re.DOTALL)
    assert without_notes.count("3 independent") == 1


def test_correlations_are_shown_with_their_limits(page):
    text = " ".join(page.text.split())
    assert "Coupling and heldout loss, all checkpoints (n = 18): R² = 0." in text
    assert "18 points of 3 models only: p-values and intervals by jackknife over them" in text
    assert "n = 3: too few points for a p-value or an interval" in text
    final = [row for row in page.rows if row[:2] == ["final", "coupling"]]
    assert [row[6] for row in final] == ["–", "–"]


def test_predictions_of_held_out_models_are_shown_with_notes(illustrated, page):
    table = illustrated.one(kind="prediction").read()
    own = [row for row in page.rows if row[:3] == ["final", "model", "coupling"]]
    assert len(own) == table["metric"].nunique()
    assert own[0][4] == "–"
    assert own[0][-1].isdecimal()
    assert "3 models to leave out in turn: too few" in page.text


def test_provenance_names_versions_and_seeds(page):
    text = " ".join(page.text.split())
    for said in ("torch version", "transformers version", "schema version"):
        assert said in text
    assert "200 resamples, seed 0" in text
    assert ["neox-64", "neox-64/step600/heldout", "none"] in page.rows  # measured, by its id


def test_results_of_two_versions_of_the_code_are_named(page, illustrated, tmp_path):
    assert "versions of the code" not in page.text
    content = json.loads(Path(illustrated.user_parameters["CATALOG_PATH"]).read_text())
    for number, entry in enumerate(content["entries"].values()):
        made = {"code": {"version": str(number % 2)}}
        entry["metadata"]["made"] = made
    file = Path(illustrated.user_parameters["CATALOG_PATH"]).with_name("mixed.yml")
    file.write_text(json.dumps(content))
    html = render(open_catalog(file, allow_outside=True))
    assert "Not the same for all results: results were made by 2 versions of the code" in html
    assert "<details open><summary><h2>Provenance</h2>" in html


def test_the_loading_snippet_runs_as_printed(file, illustrated, tmp_path, monkeypatch):
    html = file.read_text(encoding="utf-8")
    snippet = re.search(r"<pre><code>(.*?)</code></pre>", html, re.DOTALL).group(1)
    code = snippet.replace("&#34;", '"')
    # The example opens the catalog where the workflow puts it.
    monkeypatch.chdir(tmp_path)
    Path("catalog").symlink_to(Path(illustrated.user_parameters["CATALOG_PATH"]).parent)
    names: dict = {}
    exec(code, names)
    assert len(names["points"]) == 18
    assert set(names["coupling"]["model"]) == {"neox-128"}
    assert names["matrices"]["miscoupling_mean"].dims == ("variant", "K", "block", "block_other")


def test_settings_that_differ_between_models_are_shown(page):
    (head,) = [n for n, row in enumerate(page.rows) if row[:2] == ["model", "model id"]]
    assert page.rows[head] == ["model", "model id", "quantization"]
    quantization = {row[0]: row[-1] for row in page.rows[head + 1 : head + 4]}
    assert quantization == {"neox-64": "none", "neox-96": "none", "neox-128": "nf4"}


def test_markup_in_names_is_text(illustrated):
    html = render(illustrated, title="<script>alert('&')</script>")
    assert "<script>" not in html
    assert html.count("&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;") == 2


def test_the_same_catalog_makes_the_same_report(illustrated, file):
    assert render(illustrated) == file.read_text(encoding="utf-8")


def test_a_study_without_usable_figures_is_refused(analysed, illustrated, tmp_path):
    only_pdf = tmp_path / "f.pdf"
    only_pdf.write_bytes(b"%PDF")
    root = Path(analysed.path("predictors")).parents[1]
    entries = list((root / "entries").glob("*.yml"))
    entry = tmp_path / "f.yml"
    write_entry(entry, "figure", only_pdf, {"figure": "emergence", "format": "pdf"})
    for chosen in (entries, [*entries, entry]):
        with pytest.raises(UserError, match="the report needs figures as png or svg"):
            render(join(chosen, tmp_path / "catalog.yml"))


def test_a_study_without_scores_has_a_report_that_says_so(analysed, tmp_path):
    root = Path(analysed.path("predictors")).parents[1]
    entries = [
        entry
        for entry in (root / "entries").glob("0*.yml")
        if "kind: score" not in entry.read_text(encoding="utf-8")
    ]
    measured = join(entries, tmp_path / "measured.yml")
    files = write_statistics(measured, tmp_path / "correlation.parquet", resamples=10)
    for kind, path in files.items():
        entries.append(tmp_path / f"{kind}.yml")
        write_entry(entries[-1], kind, path)
    for name in ("emergence", "correlation", "predictors"):
        catalog = join(entries, tmp_path / "catalog.yml")
        (path,) = save(draw(name, catalog), tmp_path / name, ["png"])
        entries.append(tmp_path / f"figure-{name}.yml")
        write_entry(entries[-1], "figure", path, {"figure": name, "format": "png"})
    page = Reader(render(join(entries, tmp_path / "catalog.yml")))
    assert "No checkpoint of this study has a score" in page.text
    assert page.open == []


def test_findings_put_the_direction_in_words():
    row = {"predictor": "coupling", "score": "arc", "metric": "acc_norm", "subset": "final"}
    row |= {"n": 30, "r2": 0.8, "r2_low": 0.6, "r2_high": 0.9, "pearson_p": 9.99e-10, "note": ""}
    better, worse = (
        findings(pd.DataFrame([{**row, "pearson": 0.89, "higher_is_better": up}]))
        for up in (True, False)
    )
    start = "Coupling and arc acc norm, final (n = 30): R² = 0.80 [0.60, 0.90], "
    assert better == [f"{start}p = 1.0·10⁻⁹; stronger coupling correlates with the better score."]
    assert worse == [f"{start}p = 1.0·10⁻⁹; stronger coupling correlates with the worse score."]
    none = {**row, "r2": np.nan, "pearson": np.nan, "higher_is_better": True}
    said = findings(pd.DataFrame([{**none, "note": "constant predictor: no correlation"}]))
    assert said == [
        "Coupling and arc acc norm, final (n = 30): constant predictor: no correlation."
    ]


# --------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_it_without_fault(browser, file, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(file.as_uri())
    # What is folded away has to fit too.
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.get_log("browser") == []
    assert browser.title == "Block coupling"
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) == len(DRAWN)
    assert min(widths) > 0
    assert browser.execute_script("return window.innerWidth") == width
    needed, given = browser.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    assert needed <= given
    if width == 1200:  # narrower, tables scroll by themselves
        tables = "[...document.querySelectorAll('.scroll')]"
        assert browser.execute_script(
            f"return {tables}.every(each => each.scrollWidth <= each.clientWidth)"
        )
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(name => !name.startsWith('data:'))"
    )
    assert fetched == []
