"""The report's section on an experiment: the effect of setting coupling, and every comparison."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from blockcoupling.lab.intervention.arms import COUPLING, TOKENS, headline, label
from blockcoupling.lab.intervention.statistics import DIFFERENCE, SIDES, SLOPE
from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.report.table import Table, capitalized, plain, shown, tabulate
from blockcoupling.wording import number, p_value

_SURE = 0.05
_LEAD = (
    "Models whose coupling was set during training, each compared with the control's model of the "
    "same initial weights and the same texts, so that what both share cancels in the difference."
)


def section(part: Part) -> Section | None:
    """Return what was found about the arms of an experiment; None if the study has none."""
    if part.modality != "text" or not len(part.catalog.search(kind="intervention")):
        return None
    table = part.catalog.one(kind="intervention").read()
    control = str(part.catalog.one(kind="arms").read(columns=["control"])["control"].iloc[0])
    whole = table[table["stratum"] == ""]
    own = whole[whole["at"] == TOKENS]
    slopes = _slopes(own, headline(part.catalog, table["outcome"].unique()))
    return Section(
        "Experiment",
        _LEAD,
        [*_doses(own, control), *slopes, *_equivalent(whole, control)],
        tables=[every_number(table)],
        headline=capitalized(slopes[0]) if slopes else "",
    )


def _doses(table: pd.DataFrame, control: str) -> list[str]:
    """Say what coupling each arm reached."""
    own = table[(table["analysis"] == DIFFERENCE) & (table["outcome"] == COUPLING)]
    own = own[own["against"] == control]
    if own.empty:
        return []
    reached = ", ".join(f"{row['arm']} {number(row['coupling'])}" for row in own.to_dict("records"))
    return [
        f"Mean coupling reached: {control} {number(own['coupling_against'].iloc[0])}, {reached}."
    ]


def _slopes(table: pd.DataFrame, outcomes: Sequence[str]) -> list[str]:
    sentences = []
    for row in table[table["analysis"] == SLOPE].to_dict("records"):
        name = str(row["outcome"])
        if name not in outcomes or row["arm"] != SIDES[0] or pd.isna(row["p"]):
            continue
        verdict = (
            "no clear slope"
            if row["p"] >= _SURE
            else f"{label(name)} {'rises' if row['estimate'] > 0 else 'falls'} with coupling"
        )
        sentences.append(
            f"{label(name)} per unit of coupling, within pairs, over {row['arm']}: "
            f"{_estimate(row)}: {verdict}."
        )
    return sentences


def _equivalent(table: pd.DataFrame, control: str) -> list[str]:
    """Say what the comparisons with the control show about the smallest effects of interest."""
    own = table[(table["analysis"] == DIFFERENCE) & (table["against"] == control)]
    own = own[own["smallest"].notna() & (own["verdict"] != "")]
    sentences = []
    for (at, outcome), part in own.groupby(["at", "outcome"], sort=False):
        said = "; ".join(
            f"{verdict}: {', '.join(arms)}"
            for verdict, arms in part.groupby("verdict", sort=False)["arm"]
        )
        smallest = number(float(part["smallest"].iloc[0]), 3)
        sentences.append(
            f"{label(str(outcome))} compared with {control} at {at} (smallest effect of interest "
            f"{smallest}): {said}."
        )
    return sentences


def _estimate(row: dict) -> str:
    low, high = number(row["low"], 3), number(row["high"], 3)
    return f"{number(row['estimate'], 3)} [{low}, {high}], p = {p_value(row['p'])}"


def every_number(table: pd.DataFrame) -> Table:
    """Return every comparison, folded."""
    caption = (
        "Differences are means over pairs with Student's 95 % interval; slopes are means of the "
        "slopes of each pair. p adjusted for the number of arms and outcomes of a comparison "
        "(Holm); equivalence by two one-sided tests; detectable with a power of 80 %. For a "
        "slope, the two couplings are its ends."
    )
    cells = {
        "comparison": lambda row: ", ".join(
            filter(None, (row["analysis"], row["at"], row["stratum"]))
        ),
        "outcome": shown("outcome", label),
        "arm": plain("arm"),
        "control": plain("against"),
        "their coupling": lambda row: (
            f"{number(row['coupling'])}, {number(row['coupling_against'])}"
        ),
        "pairs": plain("pairs"),
        "estimate [95 %]": lambda row: (
            f"{number(row['estimate'], 4)} [{number(row['low'], 4)}, {number(row['high'], 4)}]"
        ),
        "p": shown("p", p_value),
        "adjusted p": shown("p_adjusted", p_value),
        "p of equivalence": shown("p_equivalent", p_value),
        "detectable": shown("detectable", lambda value: number(value, 3)),
        "verdict, note": lambda row: "; ".join(filter(None, (row["verdict"], row["note"]))),
    }
    text = list(cells)[:4]
    title = f"All {len(table)} comparisons of arms"
    return tabulate(table.to_dict("records"), cells, caption, words=text, title=title)
