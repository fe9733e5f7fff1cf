"""Transformer block coupling: residual Jacobians, their singular vectors, and how they line up.

Names are imported when first used, so that a command that needs no torch does not load it.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("blockcoupling")
except PackageNotFoundError:  # run from its sources, without having been installed
    __version__ = "0+sources"

_HOME = {
    "measure": "measurement.measure",
    "miscoupling": "reduce.coupling",
    "coupling": "reduce.coupling",
    "chance": "reduce.chance",
    "chance_by_draws": "reduce.chance",
    "chance_by_rotation": "reduce.rotation",
    "excess": "reduce.chance",
    "overlap": "reduce.overlap",
    "departure_from_normality": "reduce.eigenvalues",
    "readout": "reduce.readout",
    "line_shape_score": "reduce.trajectory",
    "expodistance": "reduce.trajectory",
    "equidistance": "reduce.trajectory",
    "watch": "live.trainer",
    "Watcher": "live.watcher",
    "open_store": "store.svd",
    "open_catalog": "catalog",
}
__all__ = list(_HOME)

if TYPE_CHECKING:
    from blockcoupling.catalog import open_catalog as open_catalog
    from blockcoupling.live.trainer import watch as watch
    from blockcoupling.live.watcher import Watcher as Watcher
    from blockcoupling.measurement.measure import measure as measure
    from blockcoupling.reduce.chance import chance as chance
    from blockcoupling.reduce.chance import chance_by_draws as chance_by_draws
    from blockcoupling.reduce.chance import excess as excess
    from blockcoupling.reduce.coupling import coupling as coupling
    from blockcoupling.reduce.coupling import miscoupling as miscoupling
    from blockcoupling.reduce.eigenvalues import (
        departure_from_normality as departure_from_normality,
    )
    from blockcoupling.reduce.overlap import overlap as overlap
    from blockcoupling.reduce.readout import readout as readout
    from blockcoupling.reduce.rotation import chance_by_rotation as chance_by_rotation
    from blockcoupling.reduce.trajectory import equidistance as equidistance
    from blockcoupling.reduce.trajectory import expodistance as expodistance
    from blockcoupling.reduce.trajectory import line_shape_score as line_shape_score
    from blockcoupling.store.svd import open_store as open_store


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from blockcoupling.errors import explained_imports

        with explained_imports():
            return getattr(import_module(f"blockcoupling.{_HOME[name]}"), name)
    raise AttributeError(f"module 'blockcoupling' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
