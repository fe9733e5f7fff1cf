"""Who publishes what, and under which licence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PAPER = {
    "type": "conference-paper",
    "title": "Transformer Block Coupling and its Correlation with Generalization in LLMs",
    "authors": [
        {"family-names": family, "given-names": given}
        for family, given in (
            ("Aubry", "Murdock"),
            ("Meng", "Haoming"),
            ("Sugolov", "Anton"),
            ("Papyan", "Vardan"),
        )
    ],
    "year": 2025,
    "url": "https://arxiv.org/abs/2407.07810",
}


class About(NamedTuple):
    """What the person who publishes a study says about it.

    Attributes:
        title: of the dataset.
        license: SPDX identifier, such as CC-BY-4.0.
        authors: names.
        date: ISO 8601.
        version: of the blockcoupling that publishes.
    """

    title: str
    license: str
    authors: Sequence[str]
    date: str
    version: str

    @property
    def license_url(self) -> str:
        """The licence's page."""
        return f"https://spdx.org/licenses/{self.license}"

    @property
    def description(self) -> str:
        """One sentence."""
        return (
            "Transformer block coupling: how well the top singular vectors of the blocks' "
            f"residual Jacobians align, measured by blockcoupling {self.version}."
        )
