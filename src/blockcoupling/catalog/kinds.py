"""What a study makes, kind by kind: one table, from which every list of kinds is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """What the entries of one kind hold and which command makes them."""

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
    "block_damage": Kind("what every change of blocks costs, text by text", "blockcoupling damage"),
    "damage": Kind("the same as a table", "blockcoupling damage"),
    "score": Kind("what a checkpoint scores", "blockcoupling score"),
    "weight_spectra": Kind("power laws of the weights' spectra", "blockcoupling weight-spectra"),
    "predictors": Kind("one row per checkpoint: measurements and facts", "blockcoupling correlate"),
    "correlation": Kind("each predictor held against each score", "blockcoupling correlate"),
    "correlation_by_k": Kind(
        "coupling held against the score, for every K and variant", "blockcoupling correlate"
    ),
    "prediction": Kind("scores predicted of what was left out", "blockcoupling correlate"),
    "within": Kind(
        "each predictor against each score, pooled and within depth, width, size, family",
        "blockcoupling correlate",
    ),
    "damage_statistics": Kind(
        "damage held against coupling and its rivals", "blockcoupling damage-statistics"
    ),
    "damage_pairs": Kind(
        "damage by blocks, its rivals beside it", "blockcoupling damage-statistics"
    ),
    "intervention": Kind(
        "arms held against the control, and slopes on coupling", "blockcoupling intervention"
    ),
    "arms": Kind("the members of every arm, and what came of each", "blockcoupling intervention"),
    "variance": Kind("variance between prompts, datasets, models", "blockcoupling correlate"),
    "costs": Kind("what each job took: time, processor, memory", "blockcoupling costs"),
    "figure": Kind("a picture", "blockcoupling figure"),
    "report": Kind("the report of a study", "blockcoupling report"),
}
