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
        draw: the panel function, `module:function`; takes what `read` returns and the parameters,
            returns a Matplotlib figure.
        kinds: kinds of catalog entries that it reads.
        parameters: keyword arguments of the panel function.
        modalities: kinds of models that it is drawn for.
        read: `module:function`; takes a catalog and, if the figure shows one of each, `k` and
            `variant`; raises `NothingToShow`. Empty: the panel function takes the catalog itself.
        select: further arguments of `read`.
    """

    title: str
    caption: str
    draw: str
    kinds: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[Modality, ...] = ("text", "image")
    read: str = ""
    select: Mapping[str, Any] = field(default_factory=dict)


_HERE = "blockcoupling.figures"
_LINES = f"{_HERE}.lines:draw"
_MATRICES = f"{_HERE}.matrices:draw"

FIGURES: dict[str, Specification] = {
    "miscoupling_matrices": Specification(
        "Mis-coupling between blocks",
        "Mis-coupling m(i, j) of every pair of blocks, untrained above trained, averaged over "
        "prompts and datasets. Blue: the top singular vectors of block j diagonalize the Jacobian "
        "of block i better than chance; white: chance. The diagonal (grey) is 0 by definition; "
        "undefined values are hatched. All panels share one colour scale.",
        _MATRICES,
        ("model", "miscoupling"),
        read=f"{_HERE}.matrix_data:miscoupling",
    ),
    "matrices_by_token": Specification(
        "Mis-coupling between blocks, by token",
        "Mis-coupling m(i, j) of every pair of blocks in trained models that were measured at "
        "several tokens, one row per token (for example an image's class token and the mean over "
        "its patches). Averaged over prompts and datasets; colours as in the figure above.",
        _MATRICES,
        ("model", "miscoupling"),
        modalities=("image",),
        read=f"{_HERE}.matrix_data:by_token",
    ),
    "overlaps": Specification(
        "Mis-coupling and overlaps",
        "Mis-coupling m(i, j) next to three weaker relations: blocks i and j write into the same "
        "directions (output overlap), read from the same directions (input overlap), or block i "
        "reads what an earlier block j wrote (composition). Overlaps are above chance: 0 for "
        "random subspaces, 1 for equal ones. White is chance, blue more similar. Largest models, "
        "untrained above trained; averaged over prompts and datasets; one colour scale per column. "
        "Grey: equal by definition, or undefined (composition, j ≥ i).",
        _MATRICES,
        ("model", "miscoupling"),
        {"size": (2.05, 2.0), "rows_named": False},
        read=f"{_HERE}.matrix_data:overlaps",
    ),
    "emergence": Specification(
        "Emergence during training",
        "Coupling, regularity of the last token's trajectory, and score against training step "
        "(linear up to 1, then logarithmic). Bands: one standard error over prompts; for scores, "
        "the standard error of the evaluation.",
        _LINES,
        ("predictors", "correlation", "score"),
        {"x": "{unit}", "x_scale": "steps", "size": (2.45, 2.0), "widest": 3},
        read=f"{_HERE}.line_data:emergence",
    ),
    "locality": Specification(
        "Locality",
        "Mean mis-coupling of blocks at distance |i − j|, for checkpoints from early (dark) to "
        "late (light). Bands: one standard error over prompts.",
        _LINES,
        ("model", "locality", "trajectory"),
        {
            "x": "distance between blocks |i − j|",
            "x_scale": "count",
            "y": "mis-coupling\n({variant}, K = {k})",
            "share": "all",
            "grows": True,
            "size": (2.4, 2.2),
        },
        read=f"{_HERE}.line_data:locality",
    ),
    "correlation": Specification(
        "Coupling against score",
        "Each point is a checkpoint, with standard errors; thin lines join the checkpoints of a "
        "model in training order. Dashed: least squares. In brackets: 95 % bootstrap interval of "
        "R², resampling whole models. The p-values ignore that checkpoints of one model are not "
        "independent. Models with the same weights share a colour and count once in n.",
        f"{_HERE}.scatter:draw",
        ("predictors", "correlation", "score"),
        {"size": (2.7, 2.4), "share": "row", "named": True},
        read=f"{_HERE}.scatter:correlation",
    ),
    "predictors": Specification(
        "All predictors of the score",
        "R² of each predictor alone, with 95 % bootstrap intervals over whole models. Hollow: too "
        "few points or models for an interval. A constant predictor has no R².",
        f"{_HERE}.dots:draw",
        ("correlation",),
        {"x": "R², with 95 % interval", "width": 3.3},
        read=f"{_HERE}.dots:predictors",
    ),
    "within": Specification(
        "Slopes over all models and within groups",
        "Slope of the score on each predictor, in standard deviations of both: over all points, "
        "and with a constant for each depth, width, size (depth and width) or family, that is, "
        "among similar models. Opposite signs with neither interval containing 0 are Simpson's "
        "paradox. Bars: 95 % intervals, cut off at the edge of the panel.",
        f"{_HERE}.dots:draw",
        ("within",),
        {"x": "standardized slope, 95 % interval", "width": 2.5},
        read=f"{_HERE}.dots:within",
    ),
    "coupling_vs_k": Specification(
        "Coupling against K",
        "Coupling against the number of singular vectors K, for every variant of mis-coupling. "
        "Solid: final checkpoint; dotted: untrained. Bands: one standard error over prompts.",
        _LINES,
        ("model", "coupling", "trajectory"),
        {
            "x": "number of singular vectors K",
            "x_scale": "k",
            "y": "coupling −⟨m⟩",
            "size": (2.45, 2.1),
            "widest": 3,
        },
        read=f"{_HERE}.line_data:coupling_by_k",
    ),
    "singular_values": Specification(
        "Singular values by depth",
        "Singular values sₖ of the residual Jacobians by block, untrained above trained, averaged "
        "over prompts and datasets (bands: one standard error).",
        _LINES,
        ("model", "singular_values", "trajectory"),
        {
            "x": "block",
            "x_scale": "count",
            "y": "singular value $s_k$",
            "log": True,
            "share": "all",
            "grows": True,
            "key": "$k$ = {}",
            "size": (2.3, 1.95),
        },
        read=f"{_HERE}.line_data:singular_values",
    ),
    "correlation_by_k": Specification(
        "Correlation with the score, by K",
        "R² of coupling with the score for every number of singular vectors K and every variant of "
        "mis-coupling, with 95 % bootstrap intervals over whole models.",
        _LINES,
        ("correlation_by_k",),
        {
            "x": "number of singular vectors K",
            "x_scale": "k",
            "y": "R² of coupling with\n{score}",
            "mark": "joined bars",
            "size": (4.2, 3.0),
        },
        read=f"{_HERE}.line_data:correlation_by_k",
    ),
    "hyperparameters": Specification(
        "Score against coupling and hyperparameters",
        "The score of every checkpoint against its coupling, and against each hyperparameter that "
        "differs between checkpoints. Dashed: least squares; n, R² with its interval, and p above "
        "each panel. Models with the same weights share a colour and count once in n.",
        f"{_HERE}.scatter:draw",
        ("predictors", "correlation", "score"),
        {"size": (2.7, 2.3), "share": "all"},
        read=f"{_HERE}.scatter:hyperparameters",
    ),
    "by_dataset": Specification(
        "Coupling and regularity by dataset",
        "Final checkpoints: mean and standard deviation over the prompts of each dataset, at the "
        "last token.",
        _LINES,
        ("coupling", "trajectory", "spectra", "model"),
        {
            "x": "model, final checkpoint, smallest first",
            "x_scale": "names",
            "mark": "bars",
            "size": (4.6, 1.6),
        },
        read=f"{_HERE}.line_data:by_dataset",
    ),
    "regularity": Specification(
        "Regularity of trajectories",
        "Line-shape score (1 for a straight line), expodistance (0 for exponential growth) and "
        "equidistance (0 for equal steps) of the last token's trajectory, untrained and trained. "
        "Boxes: quartiles over the prompts of all datasets; whiskers: 5 % and 95 %.",
        _LINES,
        ("coupling", "trajectory", "model"),
        {
            "x": "model, smallest first",
            "x_scale": "names",
            "mark": "boxes",
            "size": (4.2, 1.75),
        },
        read=f"{_HERE}.line_data:regularity",
    ),
    "trajectories": Specification(
        "Trajectories on principal components",
        "Hidden states of all tokens of a model's first prompt, from the input of the first block "
        "(dot) to the output of the last, on two components fitted to the outputs of the last "
        "block; their shares of the variance are in the corner. Thick line ending in a star: last "
        "token. A first token far from all others is cut off at the frame.",
        f"{_HERE}.trajectories:draw",
        ("svd", "model"),
        read=f"{_HERE}.trajectories:read",
    ),
    "block_products": Specification(
        "Products of blocks and singular vectors",
        "|U_jᵀ J_i V_j| divided by the largest singular value of J_i, for blocks halfway through "
        "the largest model, one prompt, last token. Coupled blocks show a diagonal in the tiles "
        "off the main diagonal, too.",
        f"{_HERE}.products:draw",
        ("svd", "model"),
        read=f"{_HERE}.products:read",
    ),
    "inverse_singular_values": Specification(
        "1/s against depth",
        "Inverse singular values by block with least-squares lines, as Residual Alignment reports "
        "for ResNets; the range of their R² is in the corner. Untrained above trained.",
        _LINES,
        ("singular_values", "trajectory", "model"),
        {
            "x": "block",
            "x_scale": "count",
            "y": "1 / $s_k$",
            "mark": "fit",
            "grows": True,
            "key": "$k$ = {}",
            "size": (2.4, 2.0),
        },
        read=f"{_HERE}.line_data:inverse_singular_values",
    ),
    "effective_ranks": Specification(
        "Effective ranks by depth",
        "Frobenius norm of the Jacobians, and participation ratio and entropy rank of the singular "
        "values that were kept. Bands: one standard error over prompts.",
        _LINES,
        ("spectra", "trajectory", "model"),
        {"x": "depth (block / L)", "log": True, "share": "row", "size": (3.0, 1.8)},
        read=f"{_HERE}.line_data:effective_ranks",
    ),
    "full_spectra": Specification(
        "Full spectra",
        "All singular values of each block's Jacobian, by index, for a model's first prompt. "
        "Untrained above trained; colour: depth.",
        _LINES,
        ("svd", "model"),
        {
            "x": "index k",
            "x_scale": "log",
            "y": "$s_k$",
            "log": True,
            "mark": "plain",
            "bar": "depth (block / L)",
            "size": (2.5, 2.1),
        },
        read=f"{_HERE}.line_data:full_spectra",
    ),
    "token_coupling_self": Specification(
        "Self-coupling of tokens",
        "Mis-coupling between the Jacobian of token t with respect to itself in one block and that "
        "of token t′ in another (or the same) block, for the first prompt of the largest model. "
        "Titles name the blocks. Untrained above trained, one colour scale; grey: a Jacobian "
        "compared with itself.",
        _MATRICES,
        ("tokenwise", "svd"),
        {"x": "token t′", "y": "token t", "size": (2.6, 2.6), "widest": 6},
        ("text",),
        read=f"{_HERE}.matrix_data:tokens",
        select={"comparison": "self"},
    ),
    "token_coupling_input_fixed": Specification(
        "Context coupling, input token fixed",
        "Mis-coupling between the Jacobians from one token t₁ (the first that was compared) to "
        "later tokens t₂ and t₂′. Untrained above trained, one colour scale.",
        _MATRICES,
        ("tokenwise", "svd"),
        {"x": "output token t₂′", "y": "output token t₂", "size": (2.6, 2.6), "widest": 6},
        ("text",),
        read=f"{_HERE}.matrix_data:tokens",
        select={"comparison": "input_fixed"},
    ),
    "token_coupling_output_fixed": Specification(
        "Context coupling, output token fixed",
        "Mis-coupling between the Jacobians from earlier tokens t₁ and t₁′ to one token t₂ (the "
        "last that was compared). Untrained above trained, one colour scale.",
        _MATRICES,
        ("tokenwise", "svd"),
        {"x": "input token t₁′", "y": "input token t₁", "size": (2.6, 2.6), "widest": 6},
        ("text",),
        read=f"{_HERE}.matrix_data:tokens",
        select={"comparison": "output_fixed"},
    ),
}


def figures_of(modality: Modality) -> list[str]:
    """Return the names of the figures that are drawn for models of one modality, in order."""
    return [name for name, each in FIGURES.items() if modality in each.modalities]
