"""What a change costs beyond its parts, and how well a changed model answers: by hand."""

import numpy as np
import pandas as pd
import pytest

from blockcoupling.lab.ablation.answers import answers
from blockcoupling.lab.ablation.interaction import interaction
from blockcoupling.lab.ablation.statistics import over_random

ROWS = [
    ("skip", 1, 1, 2.0),
    ("skip", 2, 2, 3.0),
    ("skip", 3, 3, 5.0),
    ("skip", 1, 2, 10.0),
    ("exit", 1, 1, 4.0),
    ("replace", 1, 2, 6.0),
    ("swap", 2, 3, 8.0),
    ("displace", 1, 1, 0.5),
    ("displace", 1, 2, 0.25),
    ("displace_random", 1, 1, 0.1),
    ("merge", 1, 3, 0.0),
]
PARTS = [None, None, None, 2 + 3, 3 + 5, 3, 3 + 5, None, 0.5, 0.5, None]


def test_every_treatment_is_compared_with_its_parts() -> None:
    means = pd.DataFrame(ROWS, columns=["treatment", "block", "block_other", "kl"])
    both = zip(ROWS, PARTS, strict=True)
    expected = [np.nan if parts is None else np.log(kl / parts) for (*_, kl), parts in both]
    np.testing.assert_allclose(interaction(means), expected, rtol=1e-12)
    lacking = means[means["treatment"] != "skip"]
    assert interaction(lacking)[lacking["treatment"] == "swap"].isna().all()


def test_independent_parts_have_no_interaction() -> None:
    singles = np.array([0.3, 1.2, 0.7])
    rows = [("skip", i + 1, i + 1, kl) for i, kl in enumerate(singles)]
    rows += [("skip", i, j, singles[i - 1] + singles[j - 1]) for i, j in ((1, 2), (1, 3), (2, 3))]
    means = pd.DataFrame(rows, columns=["treatment", "block", "block_other", "kl"])
    assert interaction(means)[3:].to_numpy() == pytest.approx(0)


def test_answers_are_those_of_the_most_probable_choice() -> None:
    def row(prompt: str, kind: str, block: int, loss: float, change: float) -> dict:
        where = {"dataset": "d", "prompt": prompt, "treatment": "skip", "block": block}
        return where | {"block_other": block, "kind": kind, "loss": loss, "loss_change": change}

    table = pd.DataFrame(
        [
            *(row("a", "answer", n, 1.0, change) for n, change in ((1, 0.0), (2, 3.0))),
            *(row("a", "choice", n, 2.0, 0.0) for n in (1, 2)),
            *(row("a", "choice", n, 5.0, 0.0) for n in (1, 2)),
            *(row("b", "answer", n, 4.0, -2.0) for n in (1, 2)),
            *(row("b", "choice", n, 3.0, 0.0) for n in (1, 2)),
            row("b", "prompt", 1, 9.0, 9.0),
        ]
    )
    found = answers(table).set_index(["prompt", "block"])
    assert found["accuracy"].to_dict() == {("a", 1): 1, ("a", 2): 0, ("b", 1): 1, ("b", 2): 1}
    assert found.loc[("a", 2), "accuracy_drop"] == 1
    assert found.loc[("b", 1), "accuracy_drop"] == -1
    before = -np.log(np.exp(-1) / np.exp([-1, -2, -5]).sum())
    after = -np.log(np.exp(-4) / np.exp([-4, -2, -5]).sum())
    assert found.loc[("a", 1), "answer_loss_change"] == pytest.approx(0, abs=1e-12)
    assert found.loc[("a", 2), "answer_loss_change"] == pytest.approx(after - before)


def test_the_safest_tenth_is_compared_with_changes_at_random() -> None:
    kl = np.exp(np.arange(20.0))
    everything = np.arange(20.0).mean()
    assert over_random(kl, kl, "block_influence") == pytest.approx(np.exp(0.5 - everything))
    assert over_random(kl, kl, "input_overlap") == pytest.approx(np.exp(18.5 - everything))
    random = np.random.default_rng(0)
    drawn = [over_random(kl, random.normal(size=20), "s1") for _ in range(2000)]
    # Two of twenty at random: the mean of the logarithm is that of all, to 4.1 / sqrt(2000).
    assert np.log(drawn).mean() == pytest.approx(0, abs=0.3)
    assert np.isnan(over_random(np.zeros(5), np.arange(5.0), "s1"))
