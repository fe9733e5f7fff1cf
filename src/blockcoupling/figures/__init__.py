"""The figures of a study: one function each, from the catalog to a Matplotlib figure.

`FIGURES` names them; :func:`draw` makes one, :func:`save` writes it. What each shows and which
figure of the paper it corresponds to: docs/figures.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blockcoupling.config.choices import Modality
from blockcoupling.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blockcoupling.catalog import Catalog


class Description(NamedTuple):
    """Where a figure is drawn, and what it says to its reader."""

    module: str
    title: str
    caption: str
    function: str = "from_catalog"
    of: tuple[Modality, ...] = ("text", "image")
    """The models that it is drawn for, by what they take."""


FIGURES: Mapping[str, Description] = {
    "miscoupling_matrices": Description(
        "matrices",
        "Mis-coupling between blocks",
        "Mis-coupling m(i, j) between every two blocks, untrained above trained, mean over prompts "
        "and datasets. Low (blue) means that the top singular vectors of block j diagonalize the "
        "Jacobian of block i; white is about what unrelated blocks have. The diagonal is 0 by "
        "definition and left grey; what is undefined is hatched; all panels share one colour "
        "scale.",
    ),
    "matrices_by_token": Description(
        "matrices_by_token",
        "Mis-coupling between blocks, by token",
        "Mis-coupling m(i, j) between every two blocks of trained models that were measured at "
        "several tokens, a row for each of those: an image's class token and the mean over its "
        "patches, say. Mean over prompts and datasets; colours as in the figure of all of them.",
        of=("image",),
    ),
    "overlaps": Description(
        "overlaps",
        "Mis-coupling and overlaps",
        "Mis-coupling m(i, j) beside what asks for less: do blocks i and j write into the same "
        "directions (output overlap), read from the same ones (input overlap), does block i read "
        "what an earlier block j wrote (composition)? Overlaps are above chance: 0 for random "
        "subspaces, 1 for the same. White is chance, blue more alike. Largest models, untrained "
        "above trained; mean over prompts and datasets; one colour scale a column. Grey: the same "
        "by definition, or without meaning (composition, j ≥ i).",
    ),
    "emergence": Description(
        "emergence",
        "Emergence during training",
        "Coupling, regularity of the last token's trajectory, and score against training step "
        "(linear up to 1, then logarithmic). Bands: one standard error over prompts; for the "
        "score, its own.",
    ),
    "locality": Description(
        "locality",
        "Locality",
        "Mean mis-coupling of blocks at distance |i − j|, for checkpoints from early (dark) to "
        "late (light). Bands: one standard error over prompts.",
    ),
    "correlation": Description(
        "correlation",
        "Coupling against score",
        "Each point is a checkpoint, with standard errors; thin lines join the checkpoints of a "
        "model in the order of training. Dashed: least squares. In brackets the 95 % bootstrap "
        "interval of R², resampling whole models. Checkpoints of one model are not independent, "
        "which the p-values ignore. Models with the same weights look alike and count once in n.",
    ),
    "predictors": Description(
        "predictors",
        "What else goes with the score",
        "R² of each predictor alone, with 95 % bootstrap intervals resampling whole models. "
        "Hollow: no interval, for want of points or of models. A constant predictor has no R².",
    ),
    "within": Description(
        "within",
        "Over all models, and among those alike",
        "Slope of the score on each predictor, in standard deviations of both over all points: "
        "over all of them, and with a constant for each depth, width, size (depth and width) or "
        "family, that is, among models that are alike in it. Where the two have opposite signs and "
        "neither interval holds 0, it is Simpson's paradox. Bars: 95 % intervals; those that go "
        "beyond the panel are cut off.",
    ),
    "coupling_vs_k": Description(
        "by_k",
        "Coupling against K",
        "Coupling against the number of singular vectors, for every variant of mis-coupling. "
        "Solid: final checkpoint; dotted: untrained. Bands: one standard error over prompts.",
    ),
    "singular_values": Description(
        "singular_values",
        "Singular values by depth",
        "Singular values sₖ of the residual Jacobians by block, untrained above trained, mean over "
        "prompts and datasets (bands: one standard error).",
    ),
    "correlation_by_k": Description(
        "correlation_by_k",
        "Correlation with the score, by K",
        "R² of coupling with the score for every number of singular vectors and every variant of "
        "mis-coupling, with 95 % bootstrap intervals resampling whole models.",
    ),
    "hyperparameters": Description(
        "hyperparameters",
        "Score against coupling and hyperparameters",
        "The score of every checkpoint against its coupling and against each fact that differs "
        "between them. Dashed: least squares; n, R² with its interval, and p above each panel. "
        "Models with the same weights look alike and count once in n.",
    ),
    "by_dataset": Description(
        "by_dataset",
        "Coupling and regularity by dataset",
        "Final checkpoints: mean over the prompts of each dataset, and their standard deviation, "
        "at the last token.",
    ),
    "regularity": Description(
        "regularity",
        "Regularity of trajectories",
        "Line-shape score (1 for a straight line), expodistance (0 for exponential growth) and "
        "equidistance (0 for equal steps) of the last token's trajectory, untrained and trained. "
        "Boxes: quartiles over the prompts of all datasets; whiskers: 5 and 95 %.",
    ),
    "trajectories": Description(
        "trajectories",
        "Trajectories on principal components",
        "Hidden states of all tokens of a model's first prompt, from the input of the first block "
        "(dot) to the output of the last, on two components fitted to the outputs of the last "
        "block; their shares of the variance in the corner. Thick, ending in a star: last token. "
        "Where the first token goes far beyond the others, it leaves the frame.",
    ),
    "block_products": Description(
        "products",
        "Products of blocks and singular vectors",
        "|U_jᵀ J_i V_j| over the largest singular value of J_i, for blocks halfway through the "
        "largest model, one prompt, last token. Where blocks are coupled, tiles off the diagonal "
        "have a diagonal of their own.",
    ),
    "inverse_singular_values": Description(
        "inverse_singular_values",
        "1/s against depth",
        "Inverse singular values by block with least-squares lines, as Residual Alignment found "
        "them in ResNets; range of their R² in the corner. Untrained above trained.",
    ),
    "effective_ranks": Description(
        "effective_ranks",
        "Effective ranks by depth",
        "Frobenius norm of the Jacobians, and the participation ratio and entropy rank of the "
        "singular values kept. Bands: one standard error over prompts.",
    ),
    "full_spectra": Description(
        "full_spectra",
        "Full spectra",
        "All singular values of each block's Jacobian, by index, for a model's first prompt. "
        "Untrained above trained; colour: depth.",
    ),
    "accuracy_by_stochastic_depth": Description(
        "lab.populations.figures",
        "Coupling against score, by stochastic depth",
        "Final checkpoints of image models, coloured by the rate of stochastic depth they were "
        "trained with; dashed: least squares within a rate. Above: the slope of the score on "
        "coupling with a constant for each rate, and its 95 % interval over models.",
        "by_rate",
        of=("image",),
    ),
    "accuracy_by_weight_decay": Description(
        "lab.populations.figures",
        "Coupling against score, by weight decay",
        "The same models, coloured by the weight decay they were trained with.",
        "by_decay",
        of=("image",),
    ),
    "stochastic_depth_effect": Description(
        "lab.populations.figures",
        "What goes with stochastic depth",
        "Coupling, regularity and score of final checkpoints against the rate of stochastic depth "
        "they were trained with. Grey: models; means with 95 % intervals over models. Above: the "
        "slope with weight decay and seed held fixed where they differ, and its 95 % interval.",
        "effect_of_rate",
        of=("image",),
    ),
    "token_coupling_self": Description(
        "token_coupling",
        "Self-coupling of tokens",
        "Mis-coupling of the Jacobian of token t with respect to itself in one block, with that of "
        "token t′ in another (or the same), for the first prompt of the largest model. The title "
        "says which blocks. Untrained above trained, one colour scale; grey: a Jacobian against "
        "itself.",
        "of_self",
        of=("text",),
    ),
    "token_coupling_input_fixed": Description(
        "token_coupling",
        "Context coupling, input token fixed",
        "Mis-coupling of the Jacobians from one token t₁, the first that was compared, to later "
        "tokens t₂ and t₂′. Untrained above trained, one colour scale.",
        "of_fixed_input",
        of=("text",),
    ),
    "token_coupling_output_fixed": Description(
        "token_coupling",
        "Context coupling, output token fixed",
        "Mis-coupling of the Jacobians from earlier tokens t₁ and t₁′ to one token t₂, the last "
        "that was compared. Untrained above trained, one colour scale.",
        "of_fixed_output",
        of=("text",),
    ),
    "damage_rivals": Description(
        "lab.ablation.figures",
        "What tells which blocks can be exchanged",
        "Rank correlation of the damage of changing two blocks with coupling and its rivals, by "
        "treatment, trained models; below, with distance and block influence held fixed (partial). "
        "Filled: p < 0.05 by permuted blocks, not corrected for the number of rivals.",
        "rivals",
        of=("text",),
    ),
    "damage_by_pairs": Description(
        "lab.ablation.figures",
        "Damage against coupling, distance and cosine",
        "Each point is a pair of blocks of the largest model, trained: the damage of changing "
        "them against mis-coupling, distance, block influence and the cosine between what enters "
        "the first and what leaves the second. Spearman's ρ, p by permuted blocks.",
        "against_rivals",
        of=("text",),
    ),
    "damage_matrices": Description(
        "lab.ablation.figures",
        "Mis-coupling and damage, block by block",
        "Mis-coupling beside the damage (log₁₀ of KL in nats a token) of every treatment of two "
        "blocks, of the largest model, untrained above trained. Of `replace`, block i's weights "
        "are at place j; the others are symmetric. Grey: not asked for; hatched: blocks that "
        "cannot be exchanged.",
        "matrices",
        of=("text",),
    ),
    "damage_by_block": Description(
        "lab.ablation.figures",
        "Damage of single blocks",
        "What it costs to leave out one block, and to leave early after it, by block and against "
        "the block's influence, for the largest model, untrained and trained. The three worst "
        "are numbered.",
        "by_block",
        of=("text",),
    ),
    "intervention_doses": Description(
        "lab.intervention.figures",
        "What came of setting coupling",
        "Each faint point is a trained model: what came of it, less what came of the control's "
        "model of the same pair (same first weights, same texts), against the coupling that it "
        "reached. Solid: means of the arms. Shaded: differences too small to matter, as the study "
        "fixed beforehand. Damage is log₁₀ of the KL in nats a token.",
        "doses",
        of=("text",),
    ),
    "intervention_arms": Description(
        "lab.intervention.figures",
        "Arms of the experiment against the control",
        "Mean difference of every arm from the control's pairs, with 95 % intervals over pairs: "
        "where both have seen as many tokens, and where both have the same loss on text that they "
        "were trained on. Shaded: too small to matter.",
        "arms",
        of=("text",),
    ),
}


def figures_of(modality: Modality) -> list[str]:
    """The figures that are drawn for models that take this."""
    return [name for name, figure in FIGURES.items() if modality in figure.of]


def _full_name(module: str) -> str:
    """A figure's module: of this package, or one of the laboratory's."""
    return f"blockcoupling.{module}" if "." in module else f"blockcoupling.figures.{module}"


FORMATS: Mapping[str, dict[str, Any]] = {
    # Without dates and program versions, the same data make the same bytes.
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {"dpi": 300, "metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
    "svg": {"dpi": 300, "metadata": {"Creator": None, "Date": None}},
}
"""The formats that a figure can be written in, and how Matplotlib is told."""


def draw(name: str, catalog: Catalog, modality: Modality | None = None, **options: Any) -> Figure:
    """Draw one figure.

    Args:
        name: one of :data:`FIGURES`.
        catalog: has the entries that the figure's module names; `k` and `variant` default to those
            of the study's statistics.
        modality: of models that take this; unset, of those that the study has, of language models
            where it has both.
        options: `k` and `variant`, where the figure is of one of each.

    Returns:
        The figure; where a study has nothing for it, a figure that says so in words.

    Raises:
        UserError: no such figure, or entries missing from the catalog.

    """
    from blockcoupling.catalog.modality import modalities, of_modality
    from blockcoupling.figures.data import NothingToShow
    from blockcoupling.figures.style import settle, statement

    if name not in FIGURES:
        raise UserError(f"unknown figure {name!r}; figures: {', '.join(FIGURES)}")
    taken = modalities(catalog)
    if modality is not None or len(taken) > 1:
        catalog = of_modality(catalog, modality or taken[0])
    module = import_module(_full_name(FIGURES[name].module))
    try:
        figure: Figure = getattr(module, FIGURES[name].function)(catalog, **options)
    except NothingToShow as reason:
        figure = statement(str(reason))
    settle(figure)
    return figure


def save(figure: Figure, stem: str | Path, formats: Iterable[str] = ("png", "pdf")) -> list[Path]:
    """Write a figure, `stem` plus `.png` and so on; the same figure makes the same bytes.

    Raises:
        UserError: a format other than png, pdf and svg.

    """
    from blockcoupling.atomic import replacing
    from blockcoupling.figures.style import styled

    wanted = list(formats)
    if unknown := [each for each in wanted if each not in FORMATS]:
        raise UserError(f"unknown format {', '.join(unknown)}; formats: {', '.join(FORMATS)}")
    # It tells, glyph by glyph, which part of a font it embeds in a PDF.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    paths = [Path(f"{stem}.{each}") for each in wanted]
    for path, each in zip(paths, wanted, strict=True):
        with replacing(path) as fresh:
            styled(figure.savefig)(fresh, format=each, **FORMATS[each])
    return paths
