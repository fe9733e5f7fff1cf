"""The predictors: what is compared with a score, its label, and the table that holds it.

Every other list of their names, in statistics, figures and report, is taken from this one.
"""

from __future__ import annotations

from typing import NamedTuple

from blockcoupling.config.overlaps import OVERLAPS


class Predictor(NamedTuple):
    """One number per checkpoint.

    A measurement is read from tables of one `kind`, at each prompt's last token (those of whole
    prompts: over all tokens), and averaged over blocks, prompts and datasets; of weights, over
    their matrices. A fact is in the model's record and has no kind.
    """

    name: str
    label: str
    """For axes and tables."""
    kind: str | None = None
    """Kind of its catalog entries: coupling, trajectory, spectra, overlap, whole_prompt,
    weight_spectra."""
    column: str | None = None
    """Its column in those tables, where that is not the name."""
    sign: int = 1
    optional: bool = False
    """Whether a study may lack it: not requested, undefined for its models, or added later."""
    covariate: str | None = None
    """Column of the points that controls for this fact in a partial correlation."""


PREDICTORS: tuple[Predictor, ...] = (
    Predictor("coupling", "coupling", "coupling"),
    Predictor(
        "adjacent_coupling", "coupling of adjacent blocks", "coupling", column="adjacent", sign=-1
    ),
    *(
        # Above chance, K/d: raw overlaps would measure how wide a model is.
        Predictor(name, f"{each.label} above chance", "overlap", f"{name}_excess", optional=True)
        for name, each in OVERLAPS.items()
    ),
    Predictor("line_shape_score", "line-shape score", "trajectory"),
    Predictor("expodistance", "expodistance", "trajectory"),
    Predictor("equidistance", "equidistance", "trajectory"),
    Predictor("jacobian_norm", "Jacobian norm ‖J‖", "spectra"),
    Predictor("s1", "largest singular value", "spectra"),
    Predictor("block_influence", "block influence, 1 − cos", "whole_prompt", optional=True),
    Predictor("cka", "CKA of neighbouring blocks", "whole_prompt", optional=True),
    Predictor("rankme", "RankMe of the last states", "whole_prompt", optional=True),
    Predictor("own_loss", "loss on the prompts", "whole_prompt", optional=True),
    Predictor(
        "weight_exponent",
        "power-law exponent α of weights",
        "weight_spectra",
        column="exponent",
        optional=True,
    ),
    Predictor("log_parameters", "log₁₀ parameters", covariate="log_parameters"),
    Predictor("depth", "depth L", covariate="depth"),
    Predictor("dimension", "dimension d", covariate="dimension"),
    Predictor("tokens", "training tokens", covariate="log_tokens"),
)

MEASURES: dict[str, str] = {each.name: each.label for each in PREDICTORS if each.kind}
"""Measurements, with their labels."""

OPTIONAL: frozenset[str] = frozenset(each.name for each in PREDICTORS if each.optional)
"""Measures that a study may lack."""

FACTS: dict[str, str] = {each.name: each.label for each in PREDICTORS if not each.kind}
"""Facts known about a checkpoint without measuring it, with their labels."""

LABELS: dict[str, str] = MEASURES | FACTS

COVARIATES: tuple[str, ...] = tuple(each.covariate for each in PREDICTORS if each.covariate)
"""What a partial correlation controls for."""


def of_kind(*kinds: str) -> list[Predictor]:
    """Return the measurements read from tables of these kinds."""
    return [each for each in PREDICTORS if each.kind in kinds]


def covariates_of(predictor: str) -> list[str]:
    """Return the covariates of a predictor: all but the one that is the predictor itself."""
    return [each.covariate for each in PREDICTORS if each.covariate and each.name != predictor]
