"""How well a changed model answers questions with choices."""

from __future__ import annotations

import numpy as np
import pandas as pd

_KEYS = ["dataset", "prompt", "treatment", "block", "block_other"]


def answers(table: pd.DataFrame) -> pd.DataFrame:
    """Score every question under every change, from the log-likelihoods of its choices.

    Args:
        table: rows of the kinds `answer` and `choice`, with the loss of each choice: −log p, summed
            over its tokens.

    Returns:
        One row for each question and change: dataset, prompt, treatment, block, block_other,
        accuracy (1 if the right choice has the highest probability), accuracy_drop (that of the
        model as it is minus accuracy), answer_loss_change (change of −log of the right choice's
        share of the probability of all choices, nats a question).
    """
    own = table[table["kind"].isin(("answer", "choice"))]
    before, after = (_scores(own, own["loss"] + change) for change in (0.0, own["loss_change"]))
    result = after.rename(columns={"right": "accuracy"})
    result["accuracy_drop"] = before["right"] - after["right"]
    result["answer_loss_change"] = after["loss"] - before["loss"]
    return result.drop(columns="loss").reset_index()


def _scores(own: pd.DataFrame, loss: pd.Series) -> pd.DataFrame:
    """Whether the right choice is the most probable one, and its loss among the choices."""
    scored = own[[*_KEYS, "kind"]].assign(loss=loss)
    right = scored[scored["kind"] == "answer"].groupby(_KEYS)["loss"].first()
    wrong = scored[scored["kind"] == "choice"].groupby(_KEYS)["loss"].agg(list).reindex(right.index)
    both = [np.array([a, *b]) for a, b in zip(right, wrong, strict=True)]
    values = {
        "right": [float(each[0] < each[1:].min()) for each in both],
        "loss": [float(each[0] + np.logaddexp.reduce(-each)) for each in both],
    }
    return pd.DataFrame(values, right.index)
