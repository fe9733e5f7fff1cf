"""The kinds of artifacts that a study makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """The content of one kind of entry, and the command that makes it."""

    holds: str
    made_by: str


KINDS: Mapping[str, Kind] = {
    "model": Kind("facts about one checkpoint and where its weights are", "blockcoupling model"),
    "prompts": Kind("the prompts of one dataset", "blockcoupling prompts"),
    "svd": Kind("singular triples of every block's residual Jacobian", "blockcoupling extract"),
    "coupling": Kind("coupling per prompt, variant and K", "blockcoupling reduce"),
    "overlap": Kind("overlaps of singular vectors per prompt and K", "blockcoupling reduce"),
    "locality": Kind("mis-coupling by distance between blocks", "blockcoupling reduce"),
    "trajectory": Kind("line-shape score, expodistance, equidistance", "blockcoupling reduce"),
    "whole_prompt": Kind("block influence, CKA, RankMe, loss by prompt", "blockcoupling reduce"),
    "spectra": Kind("norms and effective ranks per block", "blockcoupling reduce"),
    "singular_values": Kind("singular values per block and index", "blockcoupling reduce"),
    "inverse_depth_fit": Kind("1/s against depth: fit and R²", "blockcoupling reduce"),
    "miscoupling": Kind("block by block matrices over prompts", "blockcoupling reduce"),
    "token_products": Kind("A of every two compared tokens", "blockcoupling tokenwise"),
    "tokenwise": Kind("mis-coupling between tokens", "blockcoupling tokenwise"),
    "block_damage": Kind("cost of every change of blocks, text by text", "blockcoupling damage"),
    "damage": Kind("the same as a table", "blockcoupling damage"),
    "score": Kind("scores of a checkpoint", "blockcoupling score"),
    "weight_spectra": Kind("power laws of the weights' spectra", "blockcoupling weight-spectra"),
    "predictors": Kind("one row per checkpoint: measurements and facts", "blockcoupling correlate"),
    "correlation": Kind("each predictor against each score", "blockcoupling correlate"),
    "correlation_by_k": Kind(
        "coupling against the score, for every K and variant", "blockcoupling correlate"
    ),
    "prediction": Kind("scores predicted for held-out models", "blockcoupling correlate"),
    "within": Kind(
        "each predictor against each score, pooled and within depth, width, size, family",
        "blockcoupling correlate",
    ),
    "damage_statistics": Kind(
        "ablation damage against coupling and baselines", "blockcoupling damage-statistics"
    ),
    "damage_pairs": Kind(
        "ablation damage by blocks, with the baselines", "blockcoupling damage-statistics"
    ),
    "intervention": Kind(
        "arms compared with the control, and slopes on coupling", "blockcoupling intervention"
    ),
    "arms": Kind("the members of every arm, with their results", "blockcoupling intervention"),
    "variance": Kind("variance between prompts, datasets, models", "blockcoupling correlate"),
    "costs": Kind("time, processor and memory of each job", "blockcoupling costs"),
    "figure": Kind("a figure", "blockcoupling figure"),
    "explorer": Kind("the explorer of a study, one page", "blockcoupling explore"),
    "report": Kind("the report of a study", "blockcoupling report"),
}
