"""Rows of the page on displaced states and answers: displacement_pairs.csv, accuracy_pairs.csv."""

from __future__ import annotations

import numpy as np
import pandas as pd
from docs.findings.ablation import HELD, of_pairs, related
from docs.findings.estimates import p_text, plain
from docs.findings.population import HERE
from scipy import stats

FILE = "displacement_pairs.csv"


def own_over_random() -> pd.Series:
    """KL along a block's own first singular vector over that in a random direction, by block."""
    table = pd.read_csv(HERE / FILE)
    one = table[table["blocks"] == "one"]
    kl = one.pivot_table(index="block", columns="treatment", values="kl")
    return kl["displace"] / kl["displace_random"]


def rows() -> list[list[str]]:
    """As `population.rows`."""
    ratio = own_over_random()
    share = np.exp(of_pairs(FILE, "smollm2", "main", "displace")["interaction"])
    found = related(FILE, "smollm2", "main", "displace", "interaction", "miscoupling")
    overlap = related(FILE, "smollm2", "main", "displace", "interaction", "input_overlap")
    held = related(FILE, "smollm2", "main", "displace", "interaction", "miscoupling", HELD)
    asked = pd.read_csv(HERE / "accuracy_pairs.csv").query("blocks == 'one'")
    kl = stats.spearmanr(asked["kl"], asked["answer_loss_change"])
    drop = stats.spearmanr(asked["kl"], asked["accuracy_drop"])
    before = float((asked["accuracy"] + asked["accuracy_drop"]).iloc[0])
    return [
        [
            "Does a move along v₁ of a block change the predictions more than a random one?",
            "yes, in every block",
            f"KL/ε² × {np.exp(np.log(ratio).mean()):.0f} (geometric mean), larger in "
            f"{int((ratio > 1).sum())} of {len(ratio)} blocks",
            "as often smaller as larger",
            "a true share of three in four blocks",
        ],
        [
            "Does another block's v₁ act as the block's own where the two are coupled?",
            _answer(found.rho, found.p),
            f"median {share.median():.2f} of the effect of its own v₁; ρ of m with that share "
            f"{plain(found.rho)} ({p_text(found.p)}), of input overlap {plain(overlap.rho)} "
            f"({p_text(overlap.p)}); m controlling for distance, influence and position "
            f"{plain(held.rho)} ({p_text(held.p)})",
            "ρ of m not below 0",
            f"ρ = {2.8 * found.spread:.2f}",
        ],
        [
            "Does KL stand for what ablation does to answers?",
            "for the loss among the choices yes; accuracy of twelve questions is too coarse",
            f"ρ of KL with the change of that loss {plain(kl.statistic)}, with the drop of "
            f"accuracy {plain(drop.statistic)}; 30 single blocks, accuracy as it is {before:.2f} "
            "(chance 0.25)",
            "ρ near 0",
            "ρ = 0.5",
        ],
    ]


def _answer(rho: float, p: float) -> str:
    if p > 0.05:
        return "not shown"
    return "more so, the better they are coupled" if rho < 0 else "no: less so"
