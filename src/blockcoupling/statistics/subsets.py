"""Which points are looked at together: by training, size, family, tuning, score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

SIZE_CLASSES: Mapping[str, tuple[float, float]] = {
    "under 1B": (0, 1e9),
    "1B to 5B": (1e9, 5e9),
    "7B": (5e9, 9e9),
    "9B to 20B": (9e9, 20e9),
    "over 20B": (20e9, np.inf),
}
"""Numbers of parameters, lower bound included."""


class Subset(NamedTuple):
    """Some of the points, by a reason: `kind` is the reason, `name` says it in words."""

    kind: str
    name: str
    chosen: pd.Series


def subsets(
    table: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    higher_is_better: bool = True,
    score_above: Sequence[float] = (),
    size_classes: Mapping[str, tuple[float, float]] = SIZE_CLASSES,
) -> Iterator[Subset]:
    """Yield the subsets of points that are looked at.

    Checkpoints: all of them, those with any training behind them, the final ones, those of each
    model. Of the final ones: size classes, families, all but one family, base and fine-tuned
    models, the better half by score, scores above given ones. A subset that is empty, or no smaller
    than what it is taken from, is left out; so is one of fewer than two points (but for `final`).

    Args:
        table: columns model, family, base, parameters, untrained, final, value (the score).
        checkpoints: `final` leaves out everything that is about other checkpoints.
        higher_is_better: which half is the better one.
        score_above: thresholds of the score's own unit.
        size_classes: name to [low, high) in parameters.

    """
    every = pd.Series(True, index=table.index)
    final, trained = table["final"].astype(bool), ~table["untrained"].astype(bool)
    if checkpoints == "all" and not final.all():
        yield Subset("checkpoints", "all checkpoints", every)
        if 2 <= trained.sum() < len(table) and (trained != final).any():
            yield Subset("checkpoints", "trained", trained)
    yield Subset("checkpoints", "final", final)
    if checkpoints == "all":
        for model, own in table.groupby("model").groups.items():
            if 2 <= len(own) < len(table):
                yield Subset("one model", f"checkpoints of {model}", _only(table, own))

    family, size, base = table["family"], table["parameters"], table["base"]
    value = table["value"] if higher_is_better else -table["value"]
    finer = [
        Subset("size class", name, size.ge(low) & size.lt(high))
        for name, (low, high) in size_classes.items()
    ]
    names = sorted(family[final].dropna().unique())
    finer += [Subset("family", f"family {name}", family.eq(name)) for name in names]
    finer += [Subset("without family", f"without {name}", family.ne(name)) for name in names]
    finer += [
        Subset("tuning", "base models", base.eq(True)),
        Subset("tuning", "fine-tuned models", base.eq(False)),
        Subset("score range", "better half by score", value.gt(value[final].median())),
    ]
    finer += [
        Subset("score range", f"score > {limit:g}", table["value"].gt(limit))
        for limit in score_above
    ]
    for kind, name, chosen in finer:
        mask = chosen & final
        if 2 <= mask.sum() < final.sum():
            yield Subset(kind, name, mask)


def _only(table: pd.DataFrame, index: Any) -> pd.Series:
    return pd.Series(table.index.isin(index), index=table.index)
