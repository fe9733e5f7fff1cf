"""The columns of the tables that are made of stores: type, and meaning with its unit.

Those of the statistics are in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Column(NamedTuple):
    """One column of a table."""

    dtype: str
    meaning: str


def _numbers(**meanings: str) -> dict[str, Column]:
    return {name: Column("float64", meaning) for name, meaning in meanings.items()}


def _counts(**meanings: str) -> dict[str, Column]:
    return {name: Column("int64", meaning) for name, meaning in meanings.items()}


def _texts(**meanings: str) -> dict[str, Column]:
    return {name: Column("str", meaning) for name, meaning in meanings.items()}


CHECKPOINT = _texts(model="name in the study", checkpoint="name of the checkpoint")
PROMPT = {**CHECKPOINT, **_texts(dataset="name of the prompt set", prompt="id of the prompt")}
PAIR = _counts(
    token_in="t1, position of the input token, from 0; −2: the mean over an image's patches",
    token_out="t2, position of the output token, from 0",
)
VARIANT = _texts(variant="of mis-coupling")
K = _counts(k="K, number of singular vectors compared")
BLOCK = _counts(block="i, from 1")

COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "coupling": {
        **PROMPT,
        **PAIR,
        **VARIANT,
        **K,
        **_numbers(
            coupling="minus the mean of m(i, j) over i ≠ j, dimensionless",
            miscoupling="that mean",
            adjacent="mean of m over neighbouring blocks",
        ),
        **_counts(pairs="number of ordered pairs of blocks in the mean"),
        **_numbers(
            chance="mean of m for random singular vectors",
            excess="mean of 1 − m/m_chance: 0 by chance, 1 for fully coupled blocks",
        ),
    },
    "overlap": {
        **PROMPT,
        **PAIR,
        **K,
        **_numbers(
            output_overlap="mean of ‖U_iᵀ U_j‖_F²/K over i ≠ j, 0 to 1",
            input_overlap="mean of ‖V_iᵀ V_j‖_F²/K over i ≠ j, 0 to 1",
            composition="mean of ‖V_iᵀ U_j‖_F²/K over j < i, 0 to 1",
            output_overlap_excess="above chance: 0 by chance, 1 for the same subspaces",
            input_overlap_excess="above chance",
            composition_excess="above chance",
            chance="K/d, what random subspaces give",
        ),
    },
    "locality": {
        **PROMPT,
        **PAIR,
        **VARIANT,
        **K,
        **_counts(distance="|i − j|, in blocks"),
        **_numbers(miscoupling="mean of m over the pairs of blocks at that distance"),
    },
    "trajectory": {
        **PROMPT,
        **_counts(token="position in the prompt, from 0"),
        "is_last": Column("bool", "whether it is the last token of the text"),
        **_numbers(
            line_shape_score="1 on a straight line, larger elsewhere",
            expodistance="0 for exponential growth of the norm",
            equidistance="0 for equal steps",
        ),
    },
    "whole_prompt": {
        **PROMPT,
        **_numbers(
            block_influence="mean of 1 − cos of a block's input and output, over tokens and blocks",
            cka="debiased linear CKA of a block's input and output, mean over blocks",
            rankme="effective rank of the tokens' last states",
            own_loss="mean loss of the prompt's own tokens, nats per token",
        ),
    },
    "spectra": {
        **PROMPT,
        **PAIR,
        **BLOCK,
        **_numbers(
            jacobian_norm="‖J‖_F",
            jacobian_norm_error="its standard error; 0: exact",
        ),
        "s1": Column("float32", "largest singular value of J"),
        **_numbers(
            participation_ratio="(Σ s)²/Σ s² over the stored singular values",
            effective_rank="exp of the entropy of s/Σ s over the stored singular values",
            participation_ratio_full="the same over all singular values",
            effective_rank_full="the same over all singular values",
        ),
        "svd_residual": Column("float32", "largest ‖J v_k − s_k u_k‖/s_1"),
        **_numbers(
            spectral_abscissa="largest real part of an eigenvalue of J, where kept",
            departure_from_normality="sqrt(‖J‖_F² − Σ|λ|²)/‖J‖_F: 0 where J is normal",
        ),
    },
    "singular_values": {
        **PROMPT,
        **PAIR,
        **BLOCK,
        **_counts(k="index of the singular value, 1: the largest"),
        "s": Column("float32", "singular value of J"),
        "uv_cosine": Column("float32", "cos(u_k, v_k): 1 where J stretches, −1 where it reverses"),
        "s_cumulative": Column(
            "float32", "singular value of the product of I + J up to this block, where kept"
        ),
    },
    "inverse_depth_fit": {
        **PROMPT,
        **PAIR,
        **_counts(k="index of the singular value, 1: the largest"),
        **_numbers(
            slope="of 1/s on the number of the block, least squares",
            intercept="at block 0",
            r2="R² of this line",
        ),
    },
    "tokenwise": {
        **PROMPT,
        **_texts(
            comparison="`self`: t1 = t2; `input_fixed`: the same t1; `output_fixed`: the same t2"
        ),
        **BLOCK,
        **_counts(block_other="j"),
        **PAIR,
        **_counts(token_in_other="t1 of the other Jacobian", token_out_other="t2 of it"),
        **VARIANT,
        **K,
        **_numbers(miscoupling="mis-coupling, dimensionless; 0: fully coupled"),
    },
    "damage": {
        **PROMPT,
        **_texts(kind="prompt, passage, or question with a choice"),
        **_counts(tokens="number of tokens of the text"),
        **_texts(treatment="what is done to the blocks"),
        **BLOCK,
        **_counts(block_other="j; i where one block is changed"),
        **_numbers(
            kl="KL(original ‖ changed) of the next token, mean over tokens, nats per token",
            loss="of the unchanged model, nats per token",
            loss_change="change of that loss, nats per token",
        ),
        **_texts(reason="why a number is missing"),
    },
    "score": {
        **CHECKPOINT,
        **_texts(score="name of the score", metric="its metric"),
        **_numbers(value="the score, in the metric's unit", standard_error="in the same unit"),
        **_counts(n="number of questions, tokens or images"),
        "higher_is_better": Column("bool", "whether a larger score is a better one"),
        **_numbers(
            few_shot="of a score of others: number of solved examples; missing if unknown",
            lowest="of a score of others: lower bound of the metric, in its unit",
            highest="of a score of others: upper bound of the metric, in its unit",
        ),
        **_texts(
            date="of a score of others: when it was evaluated, ISO 8601",
            retrieved="of a score of others: when it was entered in its file, ISO 8601",
            source="where it comes from",
        ),
    },
}
"""Columns in their order, by kind of entry."""
