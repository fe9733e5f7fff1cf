"""Every text encoder and image model of transformers is measured right, or refused in a sentence.

What happens to each is said in docs/models.md, and held here to be so. Each is saved with weights
of bfloat16 precision and random buffers, and measured from its files.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from page_of_models import PAGE, listed
from saved_models import loaded, saved
from tiny_encoders import IMAGES, TEXTS, image_for, is_built, tiny
from transformers import PreTrainedModel
from whole_model import coupling, jacobians

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.streaming import stream_model

TITLES = {
    "Every text encoder of transformers": TEXTS,
    "Every image model of transformers": IMAGES,
}
PROMPT = "abcdefghijklmn"
K = 8
# Its own code does not take float64: the reference is autograd in float32, as well.
SINGLE = {"mra"}
AMONG_ALL, BY_THE_WHOLE_PASS, CAUSAL, BY_STAGE, NOT_TINY = (
    "measured among all tokens",
    "measured by full forward passes",
    "measured, causal",
    "refused as a whole: “is hierarchical”; a stage is measured",
    "not built tiny",
)
# What a refusal says, and the row of the page that it belongs to.
REFUSALS = {
    "cannot be run on": "refused: “cannot be run on … alone”",
    "is an encoder-decoder": "refused: “is an encoder-decoder”",
    "is hierarchical": "refused: “is hierarchical”",
    "no stack of blocks with one": "refused: “no stack of blocks with one residual stream”",
    "stacks of blocks": "refused: “stacks of blocks”",
    "passes hidden states of shape": "refused: “passes hidden states of shape”",
    "gives different tokens": "refused: “gives different tokens for the same image”",
    "expects images": "refused: “expects images”",
    "expects texts": "refused: “expects texts”",
}


def numbers(text: str) -> list[int]:
    return [3 + (ord(c) * 7) % 190 for c in text]


def outcome(kind: str, model: PreTrainedModel) -> tuple[str, xr.Dataset | None]:
    """What happens to a model, and its numbers, which are right."""
    images, stage = kind in IMAGES, {}
    given = image_for(model) if images else torch.tensor([numbers(PROMPT)])
    what = {"images": given} if images else {"tokenizer": numbers, "prompts": [PROMPT]}
    try:
        try:
            ds = bc.measure(model, k=K, **what)
        except UserError as error:
            if "is hierarchical" not in str(error):
                raise
            stage = {"stage": 2}
            ds = bc.measure(model, k=K, **what, **stage)
    except UserError as error:
        sentence = str(error)
        assert type(model).__name__ in sentence
        return next(row for words, row in REFUSALS.items() if words in sentence), None
    exact = torch.float32 if kind in SINGLE else torch.float64
    path, token = find_blocks(model, given, **stage).path, int(ds["token_in"][0, 0])
    s, wanted = coupling(jacobians(model, path, given, token, dtype=exact), K)
    # float32 against float64: roundings and, in A, those over the gaps of singular values.
    np.testing.assert_allclose(ds["S"][0, 0], s, rtol=0, atol=1e-3 * s.max())
    assert float(bc.coupling(ds, K)[0, 0]) == pytest.approx(wanted, abs=1e-3)
    if stage:
        return BY_STAGE, ds
    if ds.attrs["causal"]:
        return CAUSAL, ds
    return (AMONG_ALL if ds["context_apart"].all() else BY_THE_WHOLE_PASS), ds


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS + IMAGES)
def test_right_or_refused(kind: str, tmp_path: Path) -> None:
    (row,) = [row for title in TITLES for row, (_, kinds) in listed(title).items() if kind in kinds]
    if row == NOT_TINY:
        assert not is_built(kind)  # once it can be, it is to be walked like the others
        return
    built = tiny(kind)
    saved(built, tmp_path)
    model = loaded(type(built), tmp_path)
    found, ds = outcome(kind, model)
    assert found == row
    if ds is not None:
        with pytest.raises(UserError, match="only causal language models can be streamed"):
            stream_model(tmp_path / "bfloat16")


@pytest.mark.parametrize("title", TITLES)
def test_the_page_counts_what_it_lists(title: str) -> None:
    table, kinds = listed(title), TITLES[title]
    assert set(table) <= {AMONG_ALL, BY_THE_WHOLE_PASS, CAUSAL, BY_STAGE, NOT_TINY} | {
        *REFUSALS.values()
    }
    for row, (count, listed_kinds) in table.items():
        assert count == len(listed_kinds), row
    assert sorted(kind for _, some in table.values() for kind in some) == kinds
    built = len(kinds) - table.get(NOT_TINY, (0, []))[0]
    right = sum(count for row, (count, _) in table.items() if "measured" in row)
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"Of the {built} of {len(kinds)} kinds that can be built, {right} are right" in text
