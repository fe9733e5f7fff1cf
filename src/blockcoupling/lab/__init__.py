"""The laboratory: training and ablation of models, to find out what coupling predicts.

The instrument knows nothing of it: :func:`join` adds the laboratory's steps, figures, scores and
report sections to the instrument's tables, and only the command line calls it.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockcoupling.lab.ablation.measure import damage as damage

__all__ = ["damage", "join"]


def __getattr__(name: str) -> Any:
    if name == "damage":
        return import_module("blockcoupling.lab.ablation.measure").damage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def join() -> None:
    """Add the laboratory's rows to the instrument's tables; calling it again changes nothing."""
    from blockcoupling.figures import table
    from blockcoupling.lab.figures import FIGURES
    from blockcoupling.lab.steps import add_steps
    from blockcoupling.report.section import SECTIONS
    from blockcoupling.scores.table import EVALUATIONS

    table.FIGURES.update(FIGURES)
    SECTIONS["damage"] = "blockcoupling.lab.ablation.report:section"
    SECTIONS["experiment"] = "blockcoupling.lab.intervention.report:section"
    EVALUATIONS["gap"] = "blockcoupling.lab.training.gap:gap_scores"
    add_steps()
