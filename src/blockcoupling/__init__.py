"""Transformer block coupling: residual Jacobians, their singular vectors, and how they line up.

Names are imported when first used, so that a command that needs no torch does not load it.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("blockcoupling")

_HOME = {
    "measure": "measurement",
    "miscoupling": "reduce.coupling",
    "coupling": "reduce.coupling",
    "line_shape_score": "reduce.trajectory",
    "expodistance": "reduce.trajectory",
    "equidistance": "reduce.trajectory",
    "open_store": "store",
    "open_catalog": "catalog",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from blockcoupling.catalog import open_catalog as open_catalog
    from blockcoupling.reduce.coupling import coupling as coupling
    from blockcoupling.reduce.coupling import miscoupling as miscoupling
    from blockcoupling.measurement import measure as measure
    from blockcoupling.store import open_store as open_store
    from blockcoupling.reduce.trajectory import equidistance as equidistance
    from blockcoupling.reduce.trajectory import expodistance as expodistance
    from blockcoupling.reduce.trajectory import line_shape_score as line_shape_score


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"blockcoupling.{_HOME[name]}"), name)
    raise AttributeError(f"module 'blockcoupling' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
