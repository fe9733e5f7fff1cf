"""The laboratory's rows in the table of figures."""

from __future__ import annotations

from blockcoupling.figures.table import Specification

_LAB = "blockcoupling.lab"

FIGURES: dict[str, Specification] = {
    "accuracy_by_stochastic_depth": Specification(
        "Coupling against score, by stochastic depth",
        "Final checkpoints of image models, coloured by their rate of stochastic depth in "
        "training; dashed: least squares within a rate. Title: slope of the score on coupling with "
        "a constant for each rate, and its 95 % interval over models.",
        f"{_LAB}.populations.figures:score_by_factor",
        ("predictors", "correlation", "score"),
        {"factor": "stochastic_depth"},
        ("image",),
    ),
    "accuracy_by_weight_decay": Specification(
        "Coupling against score, by weight decay",
        "The same models, coloured by their weight decay in training.",
        f"{_LAB}.populations.figures:score_by_factor",
        ("predictors", "correlation", "score"),
        {"factor": "weight_decay"},
        ("image",),
    ),
    "stochastic_depth_effect": Specification(
        "Effects of stochastic depth",
        "Coupling, regularity and score of final checkpoints against their rate of stochastic "
        "depth in training. Grey: models; blue: means with 95 % intervals over models. Titles: "
        "slope, controlling for weight decay and seed where they differ, and its 95 % interval.",
        f"{_LAB}.populations.figures:effect_of_rate",
        ("predictors", "correlation", "score"),
        modalities=("image",),
    ),
    "damage_baselines": Specification(
        "Which measure predicts ablation damage",
        "Rank correlation of the ablation damage of two blocks with coupling and with baseline "
        "predictors, by treatment, for trained models; lower rows: partial correlations, "
        "controlling for distance, block influence and position. Filled: p < 0.05 by shifted block "
        "orders, not corrected for the number of predictors.",
        f"{_LAB}.ablation.figures:baselines",
        ("damage_statistics", "damage_pairs", "model"),
        modalities=("text",),
    ),
    "damage_by_pairs": Specification(
        "Ablation damage against coupling, distance and cosine",
        "Each point is a pair of blocks of the largest model, trained: their ablation damage "
        "against mis-coupling, distance, block influence, and the cosine between the input of the "
        "first and the output of the second. Spearman's ρ; p by shifted block orders.",
        f"{_LAB}.ablation.figures:by_pairs",
        ("damage_pairs", "damage_statistics", "model"),
        modalities=("text",),
    ),
    "damage_matrices": Specification(
        "Mis-coupling and ablation damage, block by block",
        "Mis-coupling next to the ablation damage (log₁₀ of the KL divergence in nats per token) "
        "of every treatment of two blocks, for the largest model, untrained above trained. In "
        "`replace`, the weights of block i are used at the place of block j; the other treatments "
        "are symmetric. Grey: not measured; hatched: blocks that cannot be exchanged.",
        "blockcoupling.figures.matrices:draw",
        ("damage_pairs", "damage_statistics", "model"),
        {"size": (2.2, 2.2), "widest": 6},
        ("text",),
        read=f"{_LAB}.ablation.figures:matrices",
    ),
    "damage_by_block": Specification(
        "Ablation damage of single blocks",
        "Damage of ablating one block and of exiting after it, by block and against the block's "
        "influence, for the largest model, untrained and trained. The three most damaging blocks "
        "are numbered.",
        f"{_LAB}.ablation.figures:by_block",
        ("damage_pairs", "damage_statistics", "model"),
        modalities=("text",),
    ),
    "intervention_doses": Specification(
        "Effect of setting coupling",
        "Each faint point is a trained model: its outcome minus that of the control's model of the "
        "same pair (same initial weights, same texts), against the coupling it reached. Solid: "
        "means of the arms. Shaded: differences below the smallest effect of interest, fixed in "
        "the study beforehand. Damage is log₁₀ of the KL divergence in nats per token.",
        f"{_LAB}.intervention.figures:doses",
        ("arms", "intervention"),
        modalities=("text",),
    ),
    "intervention_arms": Specification(
        "Arms of the experiment against the control",
        "Mean difference of each arm from the control's pairs, with 95 % intervals over pairs: at "
        "equal training tokens, and at equal loss on training text. Shaded: below the smallest "
        "effect of interest.",
        f"{_LAB}.intervention.figures:arms",
        ("arms", "intervention"),
        modalities=("text",),
    ),
    "intervention_course": Specification(
        "Arms of the experiment at the same training loss",
        "Scores of all checkpoints against the loss on training text, which falls from left to "
        "right. Faint: trainings; solid: means of each step. Dashed: the training loss at which "
        "the arms are compared, if the study fixes one.",
        f"{_LAB}.intervention.figures:course",
        ("arms", "intervention"),
        modalities=("text",),
    ),
}
