"""The laboratory: models that are trained or cut up here, to find out what coupling is worth.

The instrument knows nothing of it: :func:`join` adds the laboratory's steps, figures, scores and
report sections to the instrument's tables, and only the command line calls it.
"""

from functools import cache


@cache
def join() -> None:
    """Add the laboratory's rows to the instrument's tables; calling it again changes nothing."""
    from blockcoupling import figures
    from blockcoupling.lab.figures import FIGURES
    from blockcoupling.lab.steps import add_steps

    figures.FIGURES.update(FIGURES)
    add_steps()
