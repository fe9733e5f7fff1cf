"""An estimate with its interval, as the page writes it, and the smallest effect it can show."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

POWER = 0.8


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 3 if max(abs(self.low), abs(self.high)) < 0.1 else 2
        value, low, high = (plain(each, digits) for each in self)
        return f"{value} [{low}, {high}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def smallest(self) -> str:
        """The smallest effect that a study as precise as this one detects four times in five.

        A test at 5 % detects 1.96 + 0.84 standard errors with 80 %; the interval is 2 × 1.96 wide.
        """
        reach = (stats.norm.ppf(0.975) + stats.norm.ppf(POWER)) / (2 * stats.norm.ppf(0.975))
        found = reach * (self.high - self.low)
        return plain(found, 3 if found < 0.1 else 2)


class Correlation(Estimate):
    """A correlation; its error is constant on Fisher's scale."""

    @property
    def smallest(self) -> str:
        """As in `Estimate`, from an r of 0."""
        ends = np.arctanh([self.low, self.high])
        reach = (stats.norm.ppf(0.975) + stats.norm.ppf(POWER)) / (2 * stats.norm.ppf(0.975))
        return plain(float(np.tanh(reach * (ends[1] - ends[0]))), 2)


def plain(value: float, digits: int = 2) -> str:
    """A number with a real minus sign, and none before 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def mean_of(values: Any) -> Estimate:
    """A mean with Student's interval."""
    known = pd.Series(values).dropna()
    low, high = stats.ttest_1samp(known, 0).confidence_interval()
    return Estimate(float(known.mean()), float(low), float(high))


def p_text(p: float) -> str:
    """A p-value as the page writes it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
