"""Transformer block coupling: residual Jacobians, their singular vectors, and how they line up.

Names are imported when first used, so that a command that needs no torch does not load it.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("blockcoupling")

_HOME = {
    "measure": "measure",
    "miscoupling": "coupling",
    "coupling": "coupling",
    "line_shape_score": "trajectory",
    "expodistance": "trajectory",
    "equidistance": "trajectory",
    "open_store": "store",
    "open_catalog": "catalog",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from blockcoupling.catalog import open_catalog as open_catalog
    from blockcoupling.coupling import coupling as coupling
    from blockcoupling.coupling import miscoupling as miscoupling
    from blockcoupling.measure import measure as measure
    from blockcoupling.store import open_store as open_store
    from blockcoupling.trajectory import equidistance as equidistance
    from blockcoupling.trajectory import expodistance as expodistance
    from blockcoupling.trajectory import line_shape_score as line_shape_score


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"blockcoupling.{_HOME[name]}"), name)
    raise AttributeError(f"module 'blockcoupling' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
