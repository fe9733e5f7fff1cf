"""Figures of many models: points in groups that can be read, legends of a few names."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from blockcoupling.figures.groups import MOST_MODELS, grouped
from blockcoupling.figures.style import MOST_KEYS, keys, legend_below, looks, model_axis


def models(number: int, families: int = 1) -> pd.DataFrame:
    rows = range(number)
    names = [f"m{n:02d}" for n in rows]
    return pd.DataFrame(
        {
            **{"model": names, "origin": names, "family": [f"f{n % families}" for n in rows]},
            **{"depth": [2 + n % 3 for n in rows], "parameters": [number - n for n in rows]},
        }
    )


@pytest.mark.parametrize(
    ("table", "groups"),
    [
        (models(3), ["m02", "m01", "m00"]),  # the smallest first
        (models(MOST_MODELS + 1, families=2), ["f0", "f1"]),
        (models(MOST_MODELS + 1), ["depth 2", "depth 3", "depth 4"]),
    ],
)
def test_many_models_are_grouped_by_family_or_depth(table: pd.DataFrame, groups: list[str]) -> None:
    found, look = grouped(table)
    assert list(look) == groups
    assert set(found["group"]) == set(groups)


@pytest.mark.parametrize("number", [3, MOST_KEYS, 48])
def test_a_legend_has_as_many_names_as_can_be_read(number: int) -> None:
    names = [f"m{n:02d}" for n in range(number)]
    figure = Figure()
    legend_below(figure, keys(looks(names)))
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    if number <= MOST_KEYS:
        assert shown == names
    else:
        assert len(shown) <= MOST_KEYS
        assert (shown[0], shown[-2], shown[-1]) == ("m00", "m47", "… of 48")
    axes = figure.subplots()
    model_axis(axes, names)
    assert len(axes.get_xticks()) <= MOST_KEYS
