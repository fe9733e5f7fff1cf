"""Which points are analysed together: by training, size, family, tuning, score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

_SIZE_CLASSES: Mapping[str, tuple[float, float]] = {
    "under 1B": (0, 1e9),
    "1B to 5B": (1e9, 5e9),
    "7B": (5e9, 9e9),
    "9B to 20B": (9e9, 20e9),
    "over 20B": (20e9, np.inf),
}
"""Numbers of parameters, lower bound included."""


class Subset(NamedTuple):
    """Some of the points: `kind` is the criterion, `name` its value."""

    kind: str
    name: str
    chosen: pd.Series


def subsets(
    table: pd.DataFrame,
    *,
    checkpoints: Literal["all", "final"] = "all",
    higher_is_better: bool = True,
) -> Iterator[Subset]:
    """Yield the subsets of points that are analysed.

    Checkpoints: all of them, those with any training behind them, the final ones, those of each
    model. Among the final ones: size classes, families, all but one family, base and fine-tuned
    models, the better half by score. A subset that is empty, or as large as the set it is taken
    from, is skipped. So is one of fewer than two points (except `final`).

    Args:
        table: columns model, family, base, parameters, untrained, final, value (the score).
        checkpoints: `final` skips every subset that has other checkpoints.
        higher_is_better: which half by score is the better one.
    """
    every = pd.Series(True, index=table.index)
    final, trained = table["final"].astype(bool), ~table["untrained"].astype(bool)
    if checkpoints == "all" and not final.all():
        yield Subset("checkpoints", "all checkpoints", every)
        if 2 <= trained.sum() < len(table) and (trained != final).any():
            yield Subset("checkpoints", "trained", trained)
    yield Subset("checkpoints", "final", final)
    if checkpoints == "all":
        for model in sorted(table["model"].unique()):
            if 2 <= table["model"].eq(model).sum() < len(table):
                yield Subset("one model", f"checkpoints of {model}", table["model"].eq(model))

    family, size, base = table["family"], table["parameters"], table["base"]
    value = table["value"] if higher_is_better else -table["value"]
    families = sorted(family[final].dropna().unique())
    finer = [
        *(
            ("size class", n, size.ge(low) & size.lt(high))
            for n, (low, high) in _SIZE_CLASSES.items()
        ),
        *(("family", f"family {name}", family.eq(name)) for name in families),
        *(("without family", f"without {name}", family.ne(name)) for name in families),
        ("tuning", "base models", base.eq(True)),
        ("tuning", "fine-tuned models", base.eq(False)),
        ("score range", "better half by score", value.gt(value[final].median())),
    ]
    for kind, name, chosen in finer:
        mask = chosen & final
        if 2 <= mask.sum() < final.sum():
            yield Subset(kind, name, mask)
