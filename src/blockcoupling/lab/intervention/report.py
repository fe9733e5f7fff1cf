"""What setting coupling did: in words, and every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from blockcoupling.lab.intervention.arms import COUPLING, TOKENS, headline, label
from blockcoupling.lab.intervention.statistics import DIFFERENCE, SIDES, SLOPE
from blockcoupling.report.table import Table
from blockcoupling.wording import number, p_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockcoupling.catalog import Catalog

_SURE = 0.05


class Experiment(NamedTuple):
    """The report's section on an experiment."""

    findings: list[str]
    tables: list[Table]


def experiment(catalog: Catalog) -> Experiment | None:
    """Return what is to be said of arms; None where a study has none."""
    if not len(catalog.search(kind="intervention")):
        return None
    told = catalog.one(kind="intervention").read()
    control = str(catalog.one(kind="arms").read(columns=["control"])["control"].iloc[0])
    shown = headline(catalog, told["outcome"].unique())
    own = told[(told["stratum"] == "") & (told["at"] == TOKENS)]
    findings = [*_doses(own, control), *_slopes(own, shown), *_equivalent(own, control)]
    return Experiment(findings, [_every_number(told)])


def _doses(told: pd.DataFrame, control: str) -> list[str]:
    """Whether the doses took: what coupling each arm reached."""
    own = told[(told["analysis"] == DIFFERENCE) & (told["outcome"] == COUPLING)]
    own = own[own["against"] == control]
    if own.empty:
        return []
    reached = ", ".join(f"{row['arm']} {number(row['coupling'])}" for row in own.to_dict("records"))
    return [
        f"Coupling reached, in the mean: {control} {number(own['coupling_against'].iloc[0])}, "
        f"{reached}."
    ]


def _slopes(told: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    sentences = []
    for row in told[told["analysis"] == SLOPE].to_dict("records"):
        name = str(row["outcome"])
        if name not in shown or row["arm"] != SIDES[0] or pd.isna(row["p"]):
            continue
        verdict = (
            "no slope can be told from none"
            if row["p"] >= _SURE
            else f"{label(name)} {'rises' if row['estimate'] > 0 else 'falls'} with coupling"
        )
        sentences.append(
            f"{label(name)} per unit of coupling, within pairs, over {row['arm']}: "
            f"{_estimate(row)}: {verdict}."
        )
    return sentences


def _equivalent(told: pd.DataFrame, control: str) -> list[str]:
    """Of outcomes with a smallest effect of interest: which arms differ, and which do not."""
    own = told[(told["analysis"] == DIFFERENCE) & (told["against"] == control)]
    own = own[own["smallest"].notna() & own["p"].notna()]
    sentences = []
    for outcome, part in own.groupby("outcome", sort=False):
        differ = part[(part["p_adjusted"] < _SURE) & (part["estimate"].abs() >= part["smallest"])]
        same = part[part["p_equivalent"] < _SURE]
        listed = [
            ("more than the smallest effect of interest away from it", differ),
            ("surely less than that away", same),
        ]
        said = "; ".join(
            f"{what}: {', '.join(map(str, rows['arm'])) if len(rows) else 'none'}"
            for what, rows in listed
        )
        smallest = number(float(part["smallest"].iloc[0]), 3)
        sentences.append(
            f"{label(str(outcome))} against {control} (smallest effect of interest {smallest}): "
            f"{said}."
        )
    return sentences


def _estimate(row: dict) -> str:
    low, high = number(row["low"], 3), number(row["high"], 3)
    return f"{number(row['estimate'], 3)} [{low}, {high}], p = {p_value(row['p'])}"


def _every_number(told: pd.DataFrame) -> Table:
    rows = [
        [
            f"{row['analysis']}, {row['at']}" + (f", {row['stratum']}" if row["stratum"] else ""),
            label(str(row["outcome"])),
            str(row["arm"]),
            str(row["against"]),
            number(row["coupling"]),
            number(row["coupling_against"]),
            str(row["pairs"]),
            number(row["estimate"], 4),
            f"[{number(row['low'], 4)}, {number(row['high'], 4)}]",
            p_value(row["p"]),
            p_value(row["p_adjusted"]),
            p_value(row["p_equivalent"]),
        ]
        for row in told.to_dict("records")
    ]
    columns = ["comparison", "outcome", "arm", "against"]
    return Table(
        "Differences are means over pairs with Student's 95 % interval, slopes the mean of each "
        "pair's own; adjusted p for the number of arms and outcomes of a comparison (Holm); "
        "equivalence by two one-sided tests. Of a slope the two couplings are its ends.",
        [
            *columns,
            "coupling",
            "against it",
            "pairs",
            "estimate",
            "interval",
            "p",
            "adjusted p",
            "p of equivalence",
        ],
        rows,
        columns,
        f"All {len(rows)} comparisons of arms",
    )
