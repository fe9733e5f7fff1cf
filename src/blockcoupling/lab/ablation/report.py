"""What tells which blocks can be left out or exchanged: in words, and every number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from blockcoupling.report.table import Table
from blockcoupling.wording import number, p_value, words

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_NEVER_BEST = ("excess", "miscoupling")  # one is the other, seen from chance


class Damaged(NamedTuple):
    """The report's section on damage."""

    findings: list[str]
    tables: list[Table]


def damaged(catalog: Catalog) -> Damaged | None:
    """Return what is to be said of damage; None where no blocks were changed."""
    if not len(catalog.search(kind="damage_statistics")):
        return None
    told = catalog.one(kind="damage_statistics").read()
    shown = told[told["headline"] & (told["outcome"] == "kl") & told["rho"].notna()]
    groups = shown.groupby(["model", "checkpoint", "treatment", "blocks"], sort=False)
    findings = [sentence for _, own in groups if (sentence := _sentence(own))]
    return Damaged(findings, [_every_number(told)])


def _sentence(own: pd.DataFrame) -> str | None:
    """One treatment of one checkpoint: the rival that tells most, and what m adds to it."""
    plain = own[own["given"] == ""].set_index("predictor")
    if "miscoupling" not in plain.index:
        return None
    first = own.iloc[0]
    what = "one block" if first["blocks"] == "one" else "two blocks"
    rivals = plain[~plain.index.isin(_NEVER_BEST)]
    best = rivals["rho"].abs().idxmax() if len(rivals) else None
    parts = [f"{first['model']}, {first['checkpoint']}, {first['treatment']} of {what}:"]
    if best is not None:
        parts.append(
            f"of the rivals {words(str(best))} goes with the damage most ({_of(plain, best)}),"
        )
    parts.append(f"mis-coupling with {_of(plain, 'miscoupling')}")
    held = own[(own["predictor"] == "miscoupling") & (own["given"] != "")]
    if len(held):
        last = held.iloc[-1]
        parts.append(f"and, {words(last['given'])} held fixed, {_rho(last['rho'], last['p'])}")
    return " ".join(parts) + "."


def _of(table: pd.DataFrame, name: object) -> str:
    row = table.loc[[name]].iloc[0]
    return _rho(row["rho"], row["p"])


def _rho(rho: float, p: float) -> str:
    told = p_value(p)
    return f"ρ = {number(rho)}, p {told if told.startswith('<') else f'= {told}'}"


def _every_number(told: pd.DataFrame) -> Table:
    rows = [
        [
            f"{row['model']}, {row['checkpoint']}",
            f"{row['treatment']}, {row['blocks']}",
            words(row["outcome"]),
            words(row["predictor"])
            + ("" if pd.isna(row["k"]) else f", K = {int(row['k'])}")
            + ("" if pd.isna(row["variant"]) else f", {words(row['variant'])}"),
            words(row["given"]) or "nothing",
            str(row["entries"]),
            number(row["rho"]),
            p_value(row["p"]),
            p_value(row["p_adjusted"]),
        ]
        for row in told.to_dict("records")
    ]
    columns = ["model", "treatment", "damage", "held against", "held fixed"]
    most = int(told["permutations"].max()) if len(told) else 0
    caption = (
        f"Spearman's ρ (partial where something is held fixed) and its p by at most {most} "
        "permutations of blocks; adjusted for the number of rivals of a treatment (Holm)."
    )
    return Table(
        caption,
        [*columns, "pairs", "ρ", "p", "adjusted p"],
        rows,
        columns,
        f"All {len(rows)} comparisons of damage",
    )
