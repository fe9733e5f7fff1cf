"""The figures of a study, from the catalog to Matplotlib.

`FIGURES` is the table of them; :func:`draw` makes one, :func:`draw_all` all of a study, and
:func:`save` writes a figure to files. docs/figures.md lists what each shows, and its counterpart in
the paper.
"""

from blockcoupling.figures.drawing import FORMATS, draw, draw_all, save
from blockcoupling.figures.table import FIGURES, Specification, figures_of

__all__ = ["FIGURES", "FORMATS", "Specification", "draw", "draw_all", "figures_of", "save"]
