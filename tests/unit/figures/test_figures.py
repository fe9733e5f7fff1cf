"""Figures show the numbers of the tables, legibly, and the same ones make the same file."""

import logging
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from many_models import points, scores
from matplotlib import image as mpl_image
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_study import analyse, write_study

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import UserError
from blockcoupling.figures import (
    FIGURES,
    dots,
    draw,
    figures_of,
    matrices,
    save,
    scatter,
    trajectories,
)
from blockcoupling.figures.data import Ends, NothingToShow, largest
from blockcoupling.figures.line_data import full_spectra
from blockcoupling.figures.matrices import Matrices, Matrix, Scaling
from blockcoupling.figures.style import counted, looks, styled
from blockcoupling.figures.trajectories import Trajectories
from blockcoupling.statistics.predictors import OPTIONAL
from blockcoupling.statistics.within import within_groups


@pytest.fixture(scope="module")
def drawn(analysed) -> dict[str, Figure]:
    figures = {name: draw(name, analysed) for name in figures_of("text")}
    # No two models of that study have the same depth, width or size.
    return figures | {"within": dots.draw(dots.slopes(simpson()), x="slope", width=3)}


def simpson() -> pd.DataFrame:
    """Slopes pooled and within of 40 models: deeper ones couple less and score better."""
    random = np.random.default_rng(5)
    depth, width = np.repeat([4.0, 8, 12, 16, 20], 8), np.tile([64.0, 128], 20)
    own = random.normal(size=40)
    y = own + depth + 0.3 * random.normal(size=40)
    table = within_groups(points(own - depth / 2, depth, width), scores(y))
    return table.assign(headline=True)


def panels(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]


def undrawn(figure: Figure) -> set[Text]:
    """Return text that exists but is not shown: of hidden axes, of ticks beyond the ends."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [t for t in ticks if not (low <= t.get_loc() <= high and axes.axison)]
            hidden |= {text for tick in outside for text in tick.findobj(Text)}
            hidden |= set() if axes.axison else set(axis.findobj(Text))
    return hidden


@styled
def check_legible(figure: Figure) -> None:
    """All text lies within the figure and no two pieces of it overlap."""
    figure.draw_without_rendering()
    page = figure.bbox.padded(1)
    boxes = []
    hidden = undrawn(figure)
    for text in figure.findobj(Text):
        if text in hidden or not (text.get_visible() and text.get_text().strip()):
            continue
        box = text.get_window_extent()
        assert page.contains(box.x0, box.y0), text
        assert page.contains(box.x1, box.y1), text
        boxes.append((box.padded(-1), text.get_text()))
    overlapping = [(a, b) for (one, a), (other, b) in combinations(boxes, 2) if one.overlaps(other)]
    assert not overlapping


@pytest.mark.slow
@pytest.mark.parametrize("name", figures_of("text"))
def test_every_figure_is_legible_and_labelled(drawn, name):
    figure = drawn[name]
    check_legible(figure)
    shown = panels(figure)
    assert shown
    assert all(axes.has_data() for axes in shown)
    # In every row and every column of panels something says what the axis is.
    for attribute, along in (("get_xlabel", "colspan"), ("get_ylabel", "rowspan")):
        labelled: dict[int, bool] = {}
        for axes in shown:
            place = getattr(axes.get_subplotspec(), along).start
            labelled[place] = labelled.get(place, False) or bool(getattr(axes, attribute)())
        named_by_ticks = (
            name in ("predictors", "within", "intervention_arms") and attribute == "get_ylabel"
        )
        if not named_by_ticks:
            assert all(labelled.values())


@pytest.mark.parametrize("name", ["miscoupling_matrices", "correlation"])
def test_the_same_data_make_the_same_bytes(analysed, drawn, tmp_path, name):
    first = save(drawn[name], tmp_path / "first" / name, ("png", "pdf", "svg"))
    again = save(draw(name, analysed), tmp_path / "again" / name, ("png", "pdf", "svg"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_files_are_what_their_names_say(drawn, tmp_path):
    png, pdf, svg = save(drawn["emergence"], tmp_path / "e", ("png", "pdf", "svg"))
    size = np.array(drawn["emergence"].get_size_inches()) * 200
    assert mpl_image.imread(png).shape[:2] == tuple(size[::-1].astype(int))
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"<svg" in svg.read_bytes()


def test_embedding_fonts_makes_no_noise(drawn, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        save(drawn["emergence"], tmp_path / "e", ("pdf",))
    assert caplog.records == []


def test_unknown_names_and_formats_list_the_known(analysed, tmp_path):
    with pytest.raises(UserError, match="unknown figure 'emergency'; figures: miscoupling_matric"):
        draw("emergency", analysed)
    with pytest.raises(UserError, match="unknown format gif; formats: png, pdf, svg"):
        save(Figure(), tmp_path / "f", ("png", "gif"))
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_left_as_it_was(analysed):
    before = dict(mpl.rcParams)
    draw("locality", analysed)
    assert dict(mpl.rcParams) == before


def test_every_figure_says_what_it_shows():
    for name, figure in FIGURES.items():
        assert name == name.lower()
        assert figure.title
        assert figure.caption.endswith(".")


# -------------------------------------------------------------------------------- what is drawn


def test_matrices_are_means_over_datasets_on_one_scale(analysed, drawn):
    images = [axes.get_images()[0] for axes in panels(drawn["miscoupling_matrices"])]
    assert len(images) == 6
    assert len({image.get_clim() for image in images}) == 1
    untrained = panels(drawn["miscoupling_matrices"])[0]
    assert untrained.get_title().startswith("neox-64, step0\n")
    found = analysed.search(kind="miscoupling", model="neox-64", checkpoint="step0")
    expected = np.mean(
        [
            found[name].read()["miscoupling_mean"].sel(variant="frobenius", K=10).to_numpy()
            for name in found
        ],
        axis=0,
    )
    np.fill_diagonal(expected, np.nan)
    np.testing.assert_allclose(untrained.get_images()[0].get_array().filled(np.nan), expected)
    low, high = images[0].get_clim()
    assert low + high == pytest.approx(2)  # chance, 1, is in the middle of the colours
    shown = np.concatenate([image.get_array().compressed() for image in images])
    reach = abs(shown - 1).max()
    assert reach <= high - 1 <= reach + 0.05


def test_matrices_of_another_k_and_variant(analysed):
    figure = draw("miscoupling_matrices", analysed, k=5, variant="absolute_trace")
    label = figure.axes[-1].get_ylabel()
    assert "absolute trace, K = 5" in label
    assert panels(figure)[0].get_images()[0].get_array().max() < 0.5


SCALES = {"": Scaling("mis-coupling", 1.0)}


def test_a_model_without_untrained_checkpoint_leaves_its_panel_empty():
    square = np.full((3, 3), 0.5) + np.diag([1.0, 2.0, 3.0])
    own = Matrix("b", "trained", "b, main", square)
    both = [
        Matrix("a", "untrained", "a, init", np.ones((3, 3))),
        Matrix("a", "trained", "a, main", square),
        Matrix("b", "untrained", "b:\nno untrained\ncheckpoint", None),
        own,
    ]
    figure = matrices.draw(Matrices(both, SCALES))
    assert len(panels(figure)) == 3
    assert "b:\nno untrained\ncheckpoint" in [text.get_text() for text in figure.findobj(Text)]
    assert len(panels(matrices.draw(Matrices([own], SCALES)))) == 1


def test_an_end_that_no_model_has_is_left_out(tmp_path):
    models = {"one": {"blocks": 3, "dimension": 64, "parameters": 9}}
    figure = draw("miscoupling_matrices", analyse(tmp_path, write_study(tmp_path, models, (600,))))
    (shown,) = panels(figure)
    assert shown.get_ylabel() == "trained\nblock i"


def test_many_models_stay_legible():
    random = np.random.default_rng(0)
    many = []
    for n, blocks in enumerate((2, 6, 12, 24, 32, 40, 48, 60, 80)):
        values = random.uniform(0.5, 1, (blocks, blocks))
        for state, checkpoint in (("untrained", "init"), ("trained", "main")):
            many.append(Matrix(n, state, f"model-{n}, {checkpoint}\nmean 0.75", values))
    check_legible(matrices.draw(Matrices(many, SCALES)))


def test_emergence_draws_means_bands_and_scores(analysed, drawn):
    points = analysed.one(kind="predictors").read()
    own = points[points["model"] == "neox-128"].sort_values("step")
    coupling = panels(drawn["emergence"])[0]
    assert "K = 10" in coupling.get_ylabel()
    line, band = coupling.get_lines()[2], coupling.findobj(PolyCollection)[2]
    np.testing.assert_allclose(line.get_xdata(), own["step"])
    np.testing.assert_allclose(line.get_ydata(), own["coupling"])
    edge = band.get_paths()[0].vertices
    for step, mean, error in zip(own["step"], own["coupling"], own["coupling_se"], strict=True):
        heights = edge[edge[:, 0] == step, 1]
        assert heights.min() == pytest.approx(mean - error)
        assert heights.max() == pytest.approx(mean + error)
    labels = [axes.get_ylabel() for axes in panels(drawn["emergence"])]
    assert labels[-2:] == ["heldout\naccuracy", "heldout\nloss"]
    loss = panels(drawn["emergence"])[-1].get_lines()[2]
    np.testing.assert_allclose(loss.get_ydata(), own["heldout.loss"])


def test_correlation_draws_the_line_and_the_numbers_of_the_table(analysed, drawn):
    table = analysed.one(kind="correlation").read()
    row = table.query(
        "predictor == 'coupling' and metric == 'accuracy' and subset == 'all checkpoints'"
    ).iloc[0]
    first = panels(drawn["correlation"])[0]
    assert first.get_title() == (f"all checkpoints, n = 18\n{scatter.describe(row)}")
    fit = next(line for line in first.get_lines() if line.get_linestyle() == "--")
    x, y = fit.get_data()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(row["slope"])
    assert y[0] == pytest.approx(row["intercept"] + row["slope"] * x[0])
    last = panels(drawn["correlation"])[2]
    assert last.get_title().startswith("final, n = 3\nR² = ")
    assert last.get_title().endswith("no p-value")


def test_text_of_a_correlation():
    row = {"r2": 0.801, "r2_low": 0.6, "r2_high": 0.9, "pearson_p": 9.99e-10}
    assert scatter.describe(pd.Series(row)) == "R² = 0.80 [0.60, 0.90], p = 1.0·10⁻⁹"
    none = {"r2_low": np.nan, "r2_high": np.nan, "pearson_p": np.nan}
    assert scatter.describe(pd.Series({**row, **none})) == "R² = 0.80, no p-value"
    assert scatter.describe(pd.Series({**row, "r2": np.nan})) == "no correlation"


def test_locality_draws_the_mean_by_distance(analysed, drawn):
    table = analysed.search(kind="locality", model="neox-96", checkpoint="step64").frame()
    own = table.query("k == 10 and variant == 'frobenius'")
    expected = own.groupby(["dataset", "distance"])["miscoupling"].mean().groupby("distance").mean()
    axes = panels(drawn["locality"])[1]
    assert axes.get_title() == "neox-96"
    lines = [line.get_ydata() for line in axes.get_lines()]
    assert len(lines) == 6
    assert any(np.allclose(line, expected) for line in lines)


def test_coupling_against_k_has_a_panel_per_variant(analysed, drawn):
    titles = [axes.get_title() for axes in panels(drawn["coupling_vs_k"])]
    assert titles == ["frobenius", "absolute", "absolute trace", "offdiagonal", "swapped"]
    first = panels(drawn["coupling_vs_k"])[0]
    assert [line.get_linestyle() for line in first.get_lines()] == [":", "-"] * 3
    np.testing.assert_array_equal(first.get_lines()[0].get_xdata(), [1, 2, 5, 10, 20, 30])


def test_singular_values_are_means_of_the_table(analysed, drawn):
    table = analysed.search(kind="singular_values", model="neox-64", checkpoint="step600").frame()
    expected = table[table["k"] == 5].groupby("block")["s"].mean()
    trained = panels(drawn["singular_values"])[3]
    assert trained.get_title() == "neox-64, step600"
    assert trained.get_yscale() == "log"
    np.testing.assert_allclose(trained.get_lines()[2].get_ydata(), expected)


def test_predictors_without_interval_are_hollow(drawn):
    axes = panels(drawn["predictors"])[0]
    hollow = [
        line for line in axes.get_lines() if line.get_mfc() == "white" and len(line.get_xdata())
    ]
    # Those of the three final checkpoints; training tokens are equal there and have no R².
    assert sum(np.isfinite(line.get_xdata()).sum() for line in hollow) == 10 + len(OPTIONAL)


# ------------------------------------------------------------------------------ odd studies


@pytest.mark.slow
def test_without_checkpoints_emergence_says_so_and_the_rest_is_drawn(tmp_path):
    models = {"small": {"blocks": 2, "dimension": 8, "parameters": 1000}}
    measured = write_study(tmp_path, models, steps=(600,), prompts=1)
    catalog = analyse(tmp_path, measured)
    said = draw("emergence", catalog)
    text = "No model of this study has several training checkpoints."
    assert [each.get_text() for each in said.findobj(Text)] == [text]
    for name in FIGURES:
        check_legible(draw(name, catalog))


def test_more_models_than_colours_have_colours_of_their_own():
    few, many = looks("abc"), looks([f"m{n}" for n in range(20)])
    assert len({look.color for look in few.values()}) == 3
    assert len({look.color for look in many.values()}) == 20


@pytest.mark.parametrize("number", [1, 2, 6, 7, 12, 13, 32, 80, 126])
def test_ticks_of_a_count_are_few_and_start_at_one(number):
    ticks = counted(number)
    assert ticks[0] == 1
    assert ticks[-1] <= number
    assert len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_a_figure_of_fixed_tokens_shows_one_of_them(analysed):
    table = analysed.search(kind="tokenwise", model="neox-128", checkpoint="step600").frame()
    figure = draw("token_coupling_output_fixed", analysed, k=5)
    shown = table[
        (table["comparison"] == "output_fixed")
        & (table["token_out"] == 3)
        & (table["variant"] == "frobenius")
        & (table["k"] == 5)
        & (table["block"] == 1)
        & (table["block_other"] == 1)
    ].sort_values(["token_in", "token_in_other"])
    drawn = panels(figure)[2].images[0].get_array()
    np.testing.assert_allclose(
        np.ma.getdata(drawn).ravel(), shown["miscoupling"], rtol=0, atol=1e-12
    )


def test_products_are_drawn_relative_to_the_top_singular_value(analysed):
    found = analysed.search(kind="svd", model="neox-128", checkpoint="step600")
    ds = found[next(iter(found))].read().isel(prompt=0, pair=-1)
    own = panels(draw("block_products", analysed))[1].images[0].get_array()
    k = ds.sizes["k"]
    tile = np.ma.getdata(own)[:k, k : 2 * k]  # block 1 against block 2
    wanted = abs(ds["A"].values[0, 1]) / float(ds["S"][0, 0])
    np.testing.assert_allclose(tile, wanted, rtol=1e-6)


def test_without_full_spectra_the_figure_says_how_to_get_them(tmp_path):
    models = {"one": {"blocks": 3, "dimension": 8, "parameters": 9}}
    kept = full_spectra(write_study(tmp_path / "kept", models, (0,)))
    assert kept.groupby("line").size().to_list() == [64, 64, 64]
    with pytest.raises(NothingToShow, match=r"Set extract\.full: true"):
        full_spectra(write_study(tmp_path / "not", models, (7,)))


def test_inverse_singular_values_are_fitted_by_least_squares(analysed):
    figure = draw("inverse_singular_values", analysed)
    for axes in panels(figure):
        marks = [line for line in axes.lines if line.get_linestyle() == "None"]
        fits = [line for line in axes.lines if line.get_linestyle() == "-"]
        for mark, fit in zip(marks, fits, strict=True):
            x, y = mark.get_data()
            residual = np.asarray(y) - np.asarray(fit.get_ydata())
            # Least squares: what is left over has no mean and no slope.
            assert abs(residual.sum()) < 1e-9
            assert abs((residual * np.asarray(x)).sum()) < 1e-8


def test_models_that_can_be_shown_untrained_come_first():
    small, rounded = Ends("small", "step0", "step9"), Ends("rounded", None, "main")
    whole, last = Ends("whole", "init", "main"), Ends("last", None, "main")
    pairs = [small, rounded, whole, last]
    assert largest(pairs, 1) == [whole]
    assert largest(pairs, 2) == [small, whole]
    assert largest(pairs, 3) == [small, whole, last]
    assert largest(pairs, 9) == pairs


@pytest.mark.parametrize(("far", "framed"), [(1.0, False), (1000.0, True)])
def test_a_first_token_far_beyond_the_others_leaves_the_frame(far, framed):
    walks = np.random.default_rng(0).normal(size=(4, 6, 2)).cumsum(axis=1)
    walks[0] *= far
    shown = Trajectories("m", "trained", "m, main", walks, np.array([0.6, 0.2]))
    (axes,) = panels(trajectories.draw([shown]))
    (left, right), others = axes.get_xlim(), walks[1:, :, 0]
    assert left < others.min()
    assert right > others.max()
    inside = left <= walks[0, :, 0].min() and walks[0, :, 0].max() <= right
    assert inside is not framed
    assert any("leaves" in text.get_text() for text in axes.texts) is framed


def test_slopes_within_are_drawn_next_to_the_pooled_ones(drawn, analysed):
    table = simpson().query("predictor == 'coupling' and alike == 'depth'").squeeze()
    own = panels(drawn["within"])[0]
    assert own.get_title() == "arc acc, final\nover all, and within depth"
    height = [label.get_text() for label in own.get_yticklabels()].index("coupling")
    drawn = {
        (line.get_color(), *dot.tolist()) for line in own.get_lines() for dot in line.get_xydata()
    }
    assert ("#8c8c8c", table["pooled"], height + 0.17) in drawn
    assert ("#D55E00", table["within"], height - 0.17) in drawn  # the colour of the opposite sign
    said = [text.get_text() for text in draw("within", analysed).findobj(Text)]
    assert any("Too few models have the same depth" in each for each in said)


def test_overlaps_are_drawn_above_chance_with_similar_in_blue(analysed):
    figure = draw("overlaps", analysed, k=5)
    shown = panels(figure)
    assert len(shown) == 4 * 4  # two models, untrained and trained
    trained = dict(zip(("miscoupling", *OVERLAPS), shown[-4:], strict=True))
    found = analysed.search(kind="miscoupling", model="neox-128", checkpoint="step600")
    tables = [found[name].read().sel(K=5) for name in found]
    for kind in OVERLAPS:
        mean = np.mean([each[f"{kind}_mean"].to_numpy() for each in tables], axis=0)
        wanted = (mean - 5 / 128) / (1 - 5 / 128)
        (image,) = trained[kind].images
        drawn, defined = np.ma.getdata(image.get_array()), ~np.ma.getmaskarray(image.get_array())
        earlier = np.tri(8, k=-1, dtype=bool)
        assert (defined == (earlier if kind == "composition" else ~np.eye(8, dtype=bool))).all()
        np.testing.assert_allclose(drawn[defined], wanted[defined], rtol=1e-12)
        red, _, blue, _ = image.to_rgba(np.array([[drawn[defined].max()]]))[0, 0]
        assert blue > red
        assert image.to_rgba(np.zeros((1, 1)))[0, 0, :3].min() > 0.95  # white at chance
    (image,) = trained["miscoupling"].images
    red, _, blue, _ = image.to_rgba(np.array([[image.get_array().min()]]))[0, 0]
    assert blue > red


def test_without_overlaps_the_figure_says_how_to_get_them(tmp_path):
    models = {"one": {"blocks": 3, "dimension": 64, "parameters": 9}}
    measured = write_study(tmp_path, models, (600,), overlaps=False)
    figure = draw("overlaps", analyse(tmp_path, measured))
    (said,) = [each.get_text() for each in figure.findobj(Text)]
    assert "No overlaps were measured of one step600: set extract.overlaps to true" in said
