"""The figure of pairs of blocks, from damage_smollm2.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docs.findings.ablation import REAL, TREATMENTS, of_pairs, real
from docs.findings.estimates import p_text, plain

from blockcoupling.figures.style import log_heights, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTCOMES = {"kl": "KL, nats per token", "interaction": "interaction"}


@styled
def by_pairs() -> Figure:
    """Draw damage, and what belongs to the pair of it, against mis-coupling."""
    figure, axes = panels(len(OUTCOMES), len(TREATMENTS), size=(2.1, 1.9), sharex=True)
    image: Any = None
    for line, (outcome, label) in zip(axes, OUTCOMES.items(), strict=True):
        for panel, treatment in zip(line, TREATMENTS, strict=True):
            own = of_pairs("damage_smollm2.csv", REAL, "main", treatment)
            middle = (own["block"] + own["block_other"]) / 2
            image = panel.scatter(
                own["miscoupling"], own[outcome], s=7, c=middle, cmap="viridis", lw=0
            )
            found = real(treatment, outcome, "miscoupling")
            panel.set_title(f"{treatment}: ρ {plain(found.rho)} ({p_text(found.p)})", size=7)
            if outcome == "kl":
                log_heights(panel, own[outcome])
        line[0].set_ylabel(label)
    for panel in axes[-1]:
        panel.set_xlabel("mis-coupling m")
    bar = figure.colorbar(image, ax=axes, pad=0.02, shrink=0.6, aspect=30)
    bar.set_label("depth of the pair, (i + j)/2 in blocks")
    bar.outline.set_visible(False)
    return figure
