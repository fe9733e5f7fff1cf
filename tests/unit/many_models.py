"""Tables of many models, for statistics that need more of them than a study of the tests has."""

import numpy as np
import pandas as pd

from blockcoupling.statistics.predictors import MEASURES


def points(
    coupling: np.ndarray, depth: np.ndarray, width: np.ndarray | float = 64.0, family: object = "f"
) -> pd.DataFrame:
    """One row per model, as `statistics.points.points` has them; other measures are noise."""
    names = [f"m{n:02d}" for n in range(len(coupling))]
    table = pd.DataFrame(
        {"model": names, "checkpoint": "main", "origin": names, "weights": names, "final": True}
    )
    table = table.assign(untrained=False, depth=depth, dimension=width, family=family, base=None)
    table["parameters"] = 12 * table["depth"] * table["dimension"] ** 2
    table = table.assign(log_parameters=np.log10(table["parameters"]), tokens=np.nan)
    random = np.random.default_rng(0)
    for name in MEASURES:
        table[name] = random.normal(size=len(coupling))
    return table.assign(coupling=coupling)


def scores(y: np.ndarray) -> pd.DataFrame:
    """A score of each of these models."""
    return pd.DataFrame({"model": [f"m{n:02d}" for n in range(len(y))], "value": y}).assign(
        checkpoint="main", score="arc", metric="acc", higher_is_better=True
    )
