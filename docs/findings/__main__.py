"""make findings: derive every table of docs/findings.md from the committed tables in this folder.

python -m docs.findings     half a minute on one core; writes the tables of statistics and the page
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from docs.findings import (
    ablation,
    by_k,
    course,
    displaced,
    gap,
    halves,
    pictures,
    population,
    setting,
    vision,
)
from docs.findings.estimates import table

PAGE = Path(__file__).parents[1] / "findings.md"
HEADER = ["question", "answer", "effect [95 % interval]", "refuted by", "smallest effect found"]
RHO = ["", *ablation.TREATMENTS, *(f"{name}, held" for name in ablation.TREATMENTS)]

BLOCKS: Mapping[str, Callable[[], str]] = {
    "population": lambda: table(HEADER, population.rows() + by_k.rows() + course.rows()),
    "vision": lambda: table(HEADER, vision.rows()),
    "setting": lambda: table(HEADER, setting.rows()),
    "gap": lambda: table(HEADER, gap.rows()),
    "arms": gap.arms,
    "ablation": lambda: table(HEADER, ablation.rows()),
    "damage": lambda: table(RHO, ablation.rho_table("kl")),
    "interaction": lambda: table(RHO, ablation.rho_table("interaction")),
    "displacement": lambda: table(HEADER, displaced.rows()),
    "halves": lambda: table(HEADER, halves.rows()),
}
"""What is between the markers of the page."""


def filled(page: str) -> str:
    """Return the page with what is between its markers derived from the tables."""
    for name, derive in BLOCKS.items():
        start, end = f"<!-- {name} -->\n\n", f"\n\n<!-- /{name} -->"
        between = re.compile(f"(?<={re.escape(start)}).*?(?={re.escape(end)})", re.DOTALL)
        (_,) = between.findall(page)
        page = between.sub(lambda _, derive=derive: derive(), page)  # type: ignore[misc]
    return page


def main() -> None:
    """Write the tables of statistics and the page."""
    for name, found in population.statistics().items():
        own = found[found["subset"] == "final"]
        _write(own, f"sweep_{name}.csv")
    _write(pd.DataFrame(ablation.statistics()), "damage_statistics.csv")
    pictures.by_pairs().savefig(PAGE.parent / "findings" / "damage_by_pairs.png", dpi=150)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _write(found: pd.DataFrame, name: str) -> None:
    found.to_csv(PAGE.parent / "findings" / name, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
