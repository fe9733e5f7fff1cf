"""All figures of a study in one process: what is drawn, entered and removed."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from synthetic_study import analyse, write_study
from typer.testing import CliRunner

from blockcoupling.catalog import Catalog, join
from blockcoupling.cli import app
from blockcoupling.figures import FIGURES, draw, draw_all, figures_of, save
from blockcoupling.lab import figures as lab_figures
from blockcoupling.lab import join as join_laboratory


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Return a study of one checkpoint, which many figures have nothing to show of."""
    root = tmp_path_factory.mktemp("small")
    models = {"one": {"blocks": 3, "dimension": 8, "parameters": 9}}
    return analyse(root, write_study(root, models, (600,), prompts=1), arms=False)


@pytest.mark.slow
def test_figures_with_nothing_to_show_are_not_drawn(small: Catalog, tmp_path: Path) -> None:
    written = draw_all(small, tmp_path / "all", formats=["png"])
    assert list(written) == [name for name in figures_of("text") if name in written]
    assert {"miscoupling_matrices", "locality", "regularity", "full_spectra"} <= set(written)
    assert not {"emergence", "correlation_by_k", "intervention_arms"} & set(written)
    for name, paths in written.items():
        (alone,) = save(draw(name, small), tmp_path / name, ["png"])
        assert paths == [tmp_path / "all" / f"{name}.png"]
        assert paths[0].read_bytes() == alone.read_bytes()


def test_the_verb_removes_what_is_out_of_date(small: Catalog, tmp_path: Path) -> None:
    out, entries, listed = tmp_path / "figures", tmp_path / "entries", tmp_path / "text.json"
    (out / "of_images").mkdir(parents=True)
    entries.mkdir()
    for name in ("emergence.png", "locality.svg", "mine.png"):
        (out / name).write_text("old")
        (entries / f"{name}.yml").write_text("old")
    words = ["figures", "--catalog", str(_file(small)), "--out", str(out), "--format", "png"]
    words += ["--entries", str(entries), "--list", str(listed)]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    drawn = json.loads(listed.read_text())["figures"]
    files = [name for each in drawn.values() for name in each]
    assert {path.name for path in out.iterdir()} == {*files, "mine.png", "of_images"}
    assert {path.name for path in entries.iterdir()} == {f"{n}.yml" for n in (*files, "mine.png")}
    for each in drawn.values():
        for name, digest in each.items():
            assert digest == sha256((out / name).read_bytes()).hexdigest()
    (entries / "mine.png.yml").unlink()
    found = join(entries.glob("*.yml"), tmp_path / "catalog.yml").facets()
    assert found["figure"] == sorted(drawn)
    assert found["format"] == ["png"]


def test_the_laboratory_joins_the_table_of_figures_once() -> None:
    before = list(FIGURES)
    join_laboratory()
    assert list(FIGURES) == before
    assert before[-len(lab_figures.FIGURES) :] == list(lab_figures.FIGURES)


def _file(catalog: Catalog) -> Path:
    return Path(catalog.path("correlation")).parents[1] / "catalog" / "statistics.yml"
