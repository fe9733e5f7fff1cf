"""The table of figures: what each is called, what it shows, and which function draws it.

The laboratory adds its rows from its own side (`blockcoupling.lab.join`). Functions are named, not
imported, so that the table can be read without Matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockcoupling.config.choices import Modality


@dataclass(frozen=True)
class Specification:
    """One figure of a study.

    Attributes:
        title: heading in the report.
        caption: what it shows, for its reader.
        draw: `module:function`; takes a catalog and the parameters, returns a Matplotlib figure or
            raises `NothingToShow`.
        kinds: kinds of catalog entries that it reads.
        parameters: keyword arguments of the function.
        modalities: kinds of models that it is drawn for.
    """

    title: str
    caption: str
    draw: str
    kinds: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[Modality, ...] = ("text", "image")


_HERE = "blockcoupling.figures"

FIGURES: dict[str, Specification] = {
    "miscoupling_matrices": Specification(
        "Mis-coupling between blocks",
        "Mis-coupling m(i, j) of every pair of blocks, untrained above trained, averaged over "
        "prompts and datasets. Blue: the top singular vectors of block j diagonalize the Jacobian "
        "of block i better than chance; white: chance. The diagonal (grey) is 0 by definition; "
        "undefined values are hatched. All panels share one colour scale.",
        f"{_HERE}.matrices:from_catalog",
        ("model", "miscoupling"),
    ),
    "matrices_by_token": Specification(
        "Mis-coupling between blocks, by token",
        "Mis-coupling m(i, j) of every pair of blocks in trained models that were measured at "
        "several tokens, one row per token (for example an image's class token and the mean over "
        "its patches). Averaged over prompts and datasets; colours as in the figure above.",
        f"{_HERE}.matrices_by_token:from_catalog",
        ("model", "miscoupling"),
        modalities=("image",),
    ),
    "overlaps": Specification(
        "Mis-coupling and overlaps",
        "Mis-coupling m(i, j) next to three weaker relations: blocks i and j write into the same "
        "directions (output overlap), read from the same directions (input overlap), or block i "
        "reads what an earlier block j wrote (composition). Overlaps are above chance: 0 for "
        "random subspaces, 1 for equal ones. White is chance, blue more similar. Largest models, "
        "untrained above trained; averaged over prompts and datasets; one colour scale per column. "
        "Grey: equal by definition, or undefined (composition, j ≥ i).",
        f"{_HERE}.overlaps:from_catalog",
        ("model", "miscoupling"),
    ),
    "emergence": Specification(
        "Emergence during training",
        "Coupling, regularity of the last token's trajectory, and score against training step "
        "(linear up to 1, then logarithmic). Bands: one standard error over prompts; for scores, "
        "the standard error of the evaluation.",
        f"{_HERE}.emergence:from_catalog",
        ("predictors", "correlation", "score"),
    ),
    "locality": Specification(
        "Locality",
        "Mean mis-coupling of blocks at distance |i − j|, for checkpoints from early (dark) to "
        "late (light). Bands: one standard error over prompts.",
        f"{_HERE}.locality:from_catalog",
        ("model", "locality", "trajectory"),
    ),
    "correlation": Specification(
        "Coupling against score",
        "Each point is a checkpoint, with standard errors; thin lines join the checkpoints of a "
        "model in training order. Dashed: least squares. In brackets: 95 % bootstrap interval of "
        "R², resampling whole models. The p-values ignore that checkpoints of one model are not "
        "independent. Models with the same weights share a colour and count once in n.",
        f"{_HERE}.correlation:from_catalog",
        ("predictors", "correlation", "score"),
    ),
    "predictors": Specification(
        "All predictors of the score",
        "R² of each predictor alone, with 95 % bootstrap intervals over whole models. Hollow: too "
        "few points or models for an interval. A constant predictor has no R².",
        f"{_HERE}.predictors:from_catalog",
        ("correlation",),
    ),
    "within": Specification(
        "Slopes over all models and within groups",
        "Slope of the score on each predictor, in standard deviations of both: over all points, "
        "and with a constant for each depth, width, size (depth and width) or family, that is, "
        "among similar models. Opposite signs with neither interval containing 0 are Simpson's "
        "paradox. Bars: 95 % intervals, cut off at the edge of the panel.",
        f"{_HERE}.within:from_catalog",
        ("within",),
    ),
    "coupling_vs_k": Specification(
        "Coupling against K",
        "Coupling against the number of singular vectors K, for every variant of mis-coupling. "
        "Solid: final checkpoint; dotted: untrained. Bands: one standard error over prompts.",
        f"{_HERE}.by_k:from_catalog",
        ("model", "coupling", "trajectory"),
    ),
    "singular_values": Specification(
        "Singular values by depth",
        "Singular values sₖ of the residual Jacobians by block, untrained above trained, averaged "
        "over prompts and datasets (bands: one standard error).",
        f"{_HERE}.singular_values:from_catalog",
        ("model", "singular_values", "trajectory"),
    ),
    "correlation_by_k": Specification(
        "Correlation with the score, by K",
        "R² of coupling with the score for every number of singular vectors K and every variant of "
        "mis-coupling, with 95 % bootstrap intervals over whole models.",
        f"{_HERE}.correlation_by_k:from_catalog",
        ("correlation_by_k",),
    ),
    "hyperparameters": Specification(
        "Score against coupling and hyperparameters",
        "The score of every checkpoint against its coupling, and against each hyperparameter that "
        "differs between checkpoints. Dashed: least squares; n, R² with its interval, and p above "
        "each panel. Models with the same weights share a colour and count once in n.",
        f"{_HERE}.hyperparameters:from_catalog",
        ("predictors", "correlation", "score"),
    ),
    "by_dataset": Specification(
        "Coupling and regularity by dataset",
        "Final checkpoints: mean and standard deviation over the prompts of each dataset, at the "
        "last token.",
        f"{_HERE}.by_dataset:from_catalog",
        ("coupling", "trajectory", "spectra", "model"),
    ),
    "regularity": Specification(
        "Regularity of trajectories",
        "Line-shape score (1 for a straight line), expodistance (0 for exponential growth) and "
        "equidistance (0 for equal steps) of the last token's trajectory, untrained and trained. "
        "Boxes: quartiles over the prompts of all datasets; whiskers: 5 % and 95 %.",
        f"{_HERE}.regularity:from_catalog",
        ("coupling", "trajectory", "model"),
    ),
    "trajectories": Specification(
        "Trajectories on principal components",
        "Hidden states of all tokens of a model's first prompt, from the input of the first block "
        "(dot) to the output of the last, on two components fitted to the outputs of the last "
        "block; their shares of the variance are in the corner. Thick line ending in a star: last "
        "token. A first token far from all others is cut off at the frame.",
        f"{_HERE}.trajectories:from_catalog",
        ("svd", "model"),
    ),
    "block_products": Specification(
        "Products of blocks and singular vectors",
        "|U_jᵀ J_i V_j| divided by the largest singular value of J_i, for blocks halfway through "
        "the largest model, one prompt, last token. Coupled blocks show a diagonal in the tiles "
        "off the main diagonal, too.",
        f"{_HERE}.products:from_catalog",
        ("svd", "model"),
    ),
    "inverse_singular_values": Specification(
        "1/s against depth",
        "Inverse singular values by block with least-squares lines, as Residual Alignment reports "
        "for ResNets; the range of their R² is in the corner. Untrained above trained.",
        f"{_HERE}.inverse_singular_values:from_catalog",
        ("singular_values", "trajectory", "model"),
    ),
    "effective_ranks": Specification(
        "Effective ranks by depth",
        "Frobenius norm of the Jacobians, and participation ratio and entropy rank of the singular "
        "values that were kept. Bands: one standard error over prompts.",
        f"{_HERE}.effective_ranks:from_catalog",
        ("spectra", "trajectory", "model"),
    ),
    "full_spectra": Specification(
        "Full spectra",
        "All singular values of each block's Jacobian, by index, for a model's first prompt. "
        "Untrained above trained; colour: depth.",
        f"{_HERE}.full_spectra:from_catalog",
        ("svd", "model"),
    ),
    "token_coupling_self": Specification(
        "Self-coupling of tokens",
        "Mis-coupling between the Jacobian of token t with respect to itself in one block and that "
        "of token t′ in another (or the same) block, for the first prompt of the largest model. "
        "Titles name the blocks. Untrained above trained, one colour scale; grey: a Jacobian "
        "compared with itself.",
        f"{_HERE}.token_coupling:from_catalog",
        ("tokenwise", "svd"),
        {"comparison": "self"},
        ("text",),
    ),
    "token_coupling_input_fixed": Specification(
        "Context coupling, input token fixed",
        "Mis-coupling between the Jacobians from one token t₁ (the first that was compared) to "
        "later tokens t₂ and t₂′. Untrained above trained, one colour scale.",
        f"{_HERE}.token_coupling:from_catalog",
        ("tokenwise", "svd"),
        {"comparison": "input_fixed"},
        ("text",),
    ),
    "token_coupling_output_fixed": Specification(
        "Context coupling, output token fixed",
        "Mis-coupling between the Jacobians from earlier tokens t₁ and t₁′ to one token t₂ (the "
        "last that was compared). Untrained above trained, one colour scale.",
        f"{_HERE}.token_coupling:from_catalog",
        ("tokenwise", "svd"),
        {"comparison": "output_fixed"},
        ("text",),
    ),
}


def figures_of(modality: Modality) -> list[str]:
    """Return the names of the figures that are drawn for models of one modality, in order."""
    return [name for name, each in FIGURES.items() if modality in each.modalities]
