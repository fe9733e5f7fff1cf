"""A study of language models and image models: two parts, and no number of both."""

from html import unescape
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import DATASETS, IMAGE_MODELS, MODELS, write_mixed_study

from blockcoupling.catalog import Catalog, join, write_entry
from blockcoupling.catalog.modality import modalities, of_modality
from blockcoupling.figures import draw, figures_of, save
from blockcoupling.lab.populations.effects import effect
from blockcoupling.report.page import render
from blockcoupling.statistics.write import write_statistics
from blockcoupling.wording import interval, number

HEADLINE = {"text": ("heldout", "loss"), "image": ("test", "accuracy")}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The study with its statistics, each kind's by itself, and a figure of each kind."""
    root = tmp_path_factory.mktemp("mixed")
    measured = write_mixed_study(root)
    for modality, (score, metric) in HEADLINE.items():
        out = root / "statistics" / modality / "correlation.parquet"
        out.parent.mkdir(parents=True)
        files = write_statistics(
            measured, out, score=score, metric=metric, resamples=50, modality=modality
        )
        for kind, path in files.items():
            write_entry(
                root / "entries" / modality / f"{kind}.yml", kind, path, {"modality": modality}
            )
    entries = sorted((root / "entries").rglob("*.yml"))
    catalog = join(entries, root / "catalog" / "statistics.yml")
    for modality in HEADLINE:
        for path in save(draw("emergence", catalog, modality), root / f"{modality}-e", ["png"]):
            facets = {"figure": "emergence", "format": "png", "modality": modality}
            file = root / "entries" / "figures" / modality / "emergence.yml"
            write_entry(file, "figure", path, facets)
            entries.append(file)
    return join(entries, root / "catalog" / "all.yml")


def test_a_catalog_is_split_by_modality(mixed: Catalog) -> None:
    assert modalities(mixed) == ["text", "image"]
    text, image = (of_modality(mixed, each) for each in ("text", "image"))
    assert set(text.facets()["model"]) == set(MODELS)
    assert set(image.facets()["model"]) == set(IMAGE_MODELS)
    assert set(text.facets()["dataset"]) == set(DATASETS)
    assert image.facets()["dataset"] == ["digits"]
    assert not set(text) & set(image)
    assert len(text) + len(image) == len(mixed)


def test_no_correlation_has_both(mixed: Catalog) -> None:
    for modality, models in (("text", MODELS), ("image", IMAGE_MODELS)):
        predictors = mixed.one(kind="predictors", modality=modality).read()
        assert set(predictors["model"]) == set(models)
        table = mixed.one(kind="correlation", modality=modality).read()
        assert table["models"].max() <= len(models)
        assert table["n"].max() == 2 * len(models)
        named = table.loc[table["headline"], ["score", "metric"]].drop_duplicates()
        assert [tuple(row) for row in named.to_numpy()] == [HEADLINE[modality]]


def test_images_are_read_at_the_token_that_was_measured(mixed: Catalog) -> None:
    coupling = mixed.search(kind="coupling", dataset="digits").frame(
        filters=[("k", "==", 10), ("variant", "==", "frobenius")]
    )
    assert (coupling["token_in"] == 0).all()
    walks = mixed.search(kind="trajectory", dataset="digits").frame(filters=[("token", "==", 0)])
    predictors = mixed.one(kind="predictors", modality="image").read()
    point = predictors.iloc[0]
    for table, measure in ((coupling, "coupling"), (walks, "line_shape_score")):
        own = table[(table["model"] == point["model"])]
        own = own[own["checkpoint"] == point["checkpoint"]]
        assert point[measure] == pytest.approx(own[measure].mean())


@pytest.mark.parametrize(
    "name", ["accuracy_by_stochastic_depth", "accuracy_by_weight_decay", "stochastic_depth_effect"]
)
def test_figures_of_training_factors(mixed: Catalog, name: str, tmp_path: Path) -> None:
    assert name in figures_of("image")
    assert name not in figures_of("text")
    figure = draw(name, mixed, "image")
    titles = " ".join(axes.get_title() for axes in figure.axes)
    assert "slope" in titles
    table = mixed.one(kind="predictors", modality="image").read()
    final = table[table["final"]]
    if name == "stochastic_depth_effect":
        rate, held = "factor.stochastic_depth", ["factor.weight_decay", "factor.seed"]
        found = effect(final, rate, "coupling", held)
        text = f"slope {number(found.slope)} {interval(found.low, found.high)}"
        assert text in titles
    else:
        assert "n = 12" in titles
        assert np.isfinite(final["coupling"]).all()
    assert save(figure, tmp_path / name, ["png"])[0].stat().st_size > 5000


def test_matrices_of_class_token_and_patches(mixed: Catalog) -> None:
    assert "matrices_by_token" not in figures_of("text")
    figure = draw("matrices_by_token", mixed, "image")
    shown = [axes for axes in figure.axes if axes.get_images()]
    last = mixed.one(kind="predictors", modality="image").read().query("final")
    assert len(shown) == 2 * last["model"].nunique()
    labels = [axes.get_ylabel().split("\n")[0] for axes in shown if axes.get_ylabel()]
    assert set(labels) == {"class", "mean"}
    drawn = [np.asarray(axes.get_images()[0].get_array()) for axes in shown]
    off = ~np.eye(len(drawn[0]), dtype=bool)
    for model, checkpoint in last[["model", "checkpoint"]].to_numpy():
        found = mixed.one(kind="miscoupling", model=model, checkpoint=checkpoint).read()
        apart = found["miscoupling_by_pair_mean"].sel(variant="frobenius", K=10).to_numpy()
        for at_a_token in apart:
            assert any(np.allclose(each[off], at_a_token[off]) for each in drawn)


@pytest.mark.slow
def test_every_figure_of_images_is_drawn(mixed: Catalog) -> None:
    for name in figures_of("image"):
        draw(name, mixed, "image")


def test_the_report_has_a_section_of_each(mixed: Catalog) -> None:
    html = render(mixed)
    for name in ("Language models", "Image models"):
        for title in ("Measurements", "Figures", "Correlation with the score"):
            assert f"<h2>{name}: {title}</h2>" in html
    assert 'modality="text"' in unescape(html)
    for anchor in ("measurements", "figures", "correlation", "variance", "study"):
        for modality in ("text", "image"):
            assert f'id="{anchor}-{modality}"' in html
            assert f'href="#{anchor}-{modality}"' in html
