"""The report's section on ablation damage: which measure predicts it best, and every number."""

from __future__ import annotations

import pandas as pd

from blockcoupling.report.part import Part
from blockcoupling.report.section import Section
from blockcoupling.report.table import Row, Table, plain, shown, tabulate
from blockcoupling.wording import number, p_value, words

_NEVER_BEST = ("excess", "miscoupling")  # both are coupling
_COUPLING = "miscoupling"
_LEAD = (
    "Blocks are ablated, exchanged, replaced or merged; damage is the KL divergence of the model's "
    "predictions from those of the intact model, correlated with mis-coupling and with baseline "
    "predictors. Pairs of blocks share blocks, so p-values are by shifted block orders."
)


def section(part: Part) -> Section | None:
    """Return what was found about ablation damage; None if no blocks were ablated."""
    if part.modality != "text" or not len(part.catalog.search(kind="damage_statistics")):
        return None
    table = part.catalog.one(kind="damage_statistics").read()
    kl = table[table["headline"] & (table["outcome"] == "kl") & table["rho"].notna()]
    groups = [
        own
        for _, own in kl.groupby(["model", "checkpoint", "treatment", "blocks"], sort=False)
        if ((own["predictor"] == _COUPLING) & (own["given"] == "")).any()
    ]
    return Section(
        "Ablation damage",
        _LEAD,
        [_sentence(own) for own in groups],
        tables=[every_number(table)],
        headline=_headline(groups),
    )


def _headline(groups: list[pd.DataFrame]) -> str:
    """Count where mis-coupling correlates with the damage more than every baseline does."""
    if not groups:
        return ""
    first = 0
    for own in groups:
        plain_rho = own[own["given"] == ""].set_index("predictor")["rho"].abs()
        first += int(plain_rho[_COUPLING] >= plain_rho.drop("excess", errors="ignore").max())
    return (
        f"Mis-coupling predicts ablation damage better than every baseline in {first} of "
        f"{len(groups)} treatments of a checkpoint."
    )


def _sentence(own: pd.DataFrame) -> str:
    """Describe one treatment of one checkpoint: the best baseline, and what mis-coupling adds."""
    simple = own[own["given"] == ""]
    rho = {row["predictor"]: row for row in simple.to_dict("records")}
    first = own.iloc[0]
    what = "one block" if first["blocks"] == "one" else "two blocks"
    text = (
        f"{first['model']}, {first['checkpoint']}, {first['treatment']} of {what}: mis-coupling "
        f"correlates with the damage with {_rho(rho[_COUPLING])}"
    )
    baselines = [name for name in rho if name not in _NEVER_BEST]
    if baselines:
        best = max(baselines, key=lambda name: abs(rho[name]["rho"]))
        text += f", the best baseline, {words(best)}, with {_rho(rho[best])}"
    partial = own[(own["predictor"] == _COUPLING) & (own["given"] != "")]
    if len(partial):
        last = partial.to_dict("records")[-1]
        text += f"; controlling for {words(last['given'])}, mis-coupling has {_rho(last)}"
    return f"{text}."


def _rho(row: Row) -> str:
    p = p_value(row["p"])
    return f"ρ = {number(row['rho'])} (p {p if p.startswith('<') else f'= {p}'})"


def every_number(table: pd.DataFrame) -> Table:
    """Return every rank correlation, folded."""
    caption = (
        "Spearman's ρ (partial if controlled) and its p by at most "
        f"{int(table['permutations'].max()) if len(table) else 0} block orders; adjusted "
        "for the number of predictors of a treatment (Holm)."
    )
    cells = {
        "model": lambda row: f"{row['model']}, {row['checkpoint']}",
        "treatment": lambda row: f"{row['treatment']}, {row['blocks']}",
        "damage": shown("outcome", words),
        "predictor": lambda row: (
            words(row["predictor"])
            + ("" if pd.isna(row["k"]) else f", K = {int(row['k'])}")
            + ("" if pd.isna(row["variant"]) else f", {words(row['variant'])}")
        ),
        "controlling for": lambda row: words(row["given"]) or "nothing",
        "pairs": plain("entries"),
        "ρ": shown("rho", number),
        "p": shown("p", p_value),
        "adjusted p": shown("p_adjusted", p_value),
    }
    text = list(cells)[:5]
    title = f"All {len(table)} rank correlations"
    return tabulate(table.to_dict("records"), cells, caption, words=text, title=title)
