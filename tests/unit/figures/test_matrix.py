"""Matrices are drawn about chance: one function for the study's figure and the quick figure."""

import numpy as np
import pytest
from example_store import example
from matplotlib import image as mpl_image
from matplotlib.collections import PolyQuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from blockcoupling.errors import UserError
from blockcoupling.figures import quick
from blockcoupling.figures.matrices import Matrices, Matrix, Scaling
from blockcoupling.figures.matrices import draw as draw_study
from blockcoupling.figures.matrix import Scale, colour_bar, draw_matrix, off_diagonal
from blockcoupling.reduce.chance import chance
from blockcoupling.reduce.coupling import miscoupling

GREY = to_rgba("#bdbdbd")


def near_one(blocks: int = 5) -> np.ndarray:
    """Return what an untrained model has: all values within a few percent of 1, diagonal 0."""
    values = 1 + np.random.default_rng(0).uniform(-0.04, 0.03, (blocks, blocks))
    np.fill_diagonal(values, 0)
    return values


def drawn(values: np.ndarray, centre: float | None = 1.0) -> tuple[Figure, object]:
    figure = Figure()
    axes = figure.subplots()
    image = draw_matrix(axes, values, Scale([off_diagonal(values)], centre))
    colour_bar(figure, image, axes, "m")
    figure.draw_without_rendering()
    return figure, image


def colours(image) -> np.ndarray:
    return image.to_rgba(image.get_array())


def test_values_near_one_are_distinguished_and_the_diagonal_is_grey():
    values = near_one()
    _, image = drawn(values)
    shown = colours(image)
    np.testing.assert_allclose(shown[np.eye(5, dtype=bool)], [GREY] * 5)
    below, above = shown[values == values[values > 0].min()], shown[values == values.max()]
    assert below[0, 2] > below[0, 0]  # blue
    assert above[0, 0] > above[0, 2]  # red
    # The diagonal's 0 takes no part of the scale.
    assert image.norm.vmin > 0.9


@pytest.mark.parametrize("centre", [0.7, 1.0, 1.04])
def test_colours_diverge_at_the_centre_equally_on_both_sides(centre):
    values = near_one()
    _, image = drawn(values, centre)
    middle = image.to_rgba(np.array([[centre]]))[0, 0]
    assert middle[:3].min() > 0.95  # white
    assert image.norm.vmax - centre == pytest.approx(centre - image.norm.vmin)
    assert image.norm.vmin <= values[values > 0].min()
    assert values.max() <= image.norm.vmax


def test_the_bar_shows_what_occurs_and_the_centre():
    values = np.where(np.eye(4, dtype=bool), 0, 0.5)
    values[0, 1] = 0.42
    figure, _ = drawn(values)
    (bar,) = (axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    assert bar.get_ylim() == pytest.approx((0.42, 1.0), abs=0.011)
    assert "white: 1, about chance" in bar.get_ylabel()


def test_without_a_centre_colours_go_from_the_least_to_the_largest():
    values = near_one() / 5
    figure, image = drawn(values, None)
    others = off_diagonal(values)
    assert image.norm.vmin == pytest.approx(others.min(), abs=0.011)
    assert image.norm.vmax == pytest.approx(others.max(), abs=0.011)
    assert "chance" not in figure.axes[-1].get_ylabel()


def test_undefined_values_are_hatched_and_take_no_part_in_the_scale():
    values = near_one()
    values[2, :] = [np.nan, np.inf, 0, np.nan, np.nan]
    figure, image = drawn(values)
    (hatched,) = figure.axes[0].findobj(PolyQuadMesh)
    assert hatched.get_hatch()
    where = ~np.ma.getmaskarray(hatched.get_array()).reshape(5, 5)
    assert np.argwhere(where).tolist() == [[2, 0], [2, 1], [2, 3], [2, 4]]
    assert np.isfinite([image.norm.vmin, image.norm.vmax]).all()


@pytest.mark.parametrize(
    "values", [np.ones((2, 2)), np.full((3, 3), np.nan), np.zeros((1, 1)), np.zeros((2, 2))]
)
def test_there_is_a_scale_however_little_there_is_to_show(values):
    _, image = drawn(values)
    assert image.norm.vmin < image.norm.vmax


@pytest.mark.parametrize("variant", ["frobenius", "offdiagonal"])
def test_the_figure_is_centred_at_chance(variant):
    ds = example(prompts=3, k=4, blocks=6)
    image = quick.draw(ds, 4, variant, "a model").axes[0].get_images()[0]
    assert image.norm.centre == pytest.approx(float(chance(ds, 4, variant).mean()))


def test_the_figures_of_one_model_and_of_a_study_look_the_same():
    ds = example(prompts=3, k=4, blocks=6)
    # Of how wide the model is, a study's matrices say nothing.
    ds = ds.drop_dims(["embed", "k_full"], errors="ignore")
    ds.attrs.pop("dimension", None)
    mean = miscoupling(ds, k=4).mean(["prompt", "pair"]).to_numpy()
    one = quick.draw(ds, 4, "frobenius", "a model").axes[0].get_images()[0]
    whole = draw_study(Matrices([Matrix("a", "trained", "a, main", mean)], {"": Scaling("m", 1.0)}))
    other = whole.axes[0].get_images()[0]
    np.testing.assert_array_equal(colours(one), colours(other))
    np.testing.assert_allclose(np.ma.getdata(one.get_array()), mean)


def test_the_figure_says_what_it_shows(tmp_path):
    ds = example(prompts=3, k=4)
    figure = quick.draw(ds, 2, "absolute", "/a" * 60 + "/model/step7")
    said = figure.axes[0].get_title() + figure.axes[-1].get_ylabel()
    for part in ("/model/step7\n", "…", "absolute, K = 2, 3 prompts", "mean 0."):
        assert part in said
    assert max(map(len, figure.axes[0].get_title().splitlines())) <= 60


def test_an_undefined_block_is_named_in_the_figure():
    ds = example(prompts=2, k=4, blocks=4)
    products = ds["A"].to_numpy().copy()
    products[:, :, 2] = np.nan
    figure = quick.draw(ds.assign(A=(ds["A"].dims, products)), 4, "frobenius", "m")
    assert figure.axes[0].get_title().endswith("hatched: undefined (3)")


def test_the_file_is_of_the_format_that_its_name_asks_for(tmp_path):
    ds = example(prompts=1, k=2)
    quick.quick_figure(ds, 2, "frobenius", "m", tmp_path / "new" / "a.b.png")
    assert mpl_image.imread(tmp_path / "new" / "a.b.png").shape[2] >= 3
    quick.quick_figure(ds, 2, "frobenius", "m", tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    for name in ("a.gif", "a"):
        with pytest.raises(UserError, match=r"use a name that ends in \.png, \.pdf, \.svg"):
            quick.quick_figure(ds, 2, "frobenius", "m", tmp_path / name)
