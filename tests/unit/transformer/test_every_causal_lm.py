"""Every causal language model of transformers is measured right, or refused in a sentence.

What happens to each is said in docs/models.md, and held here to be so.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_causal_lms import KINDS, MOST_WEIGHTS, NOT_BUILT, tiny
from transformers import PreTrainedModel
from whole_model import coupling, jacobians

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import find_blocks

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
PROMPT = "abcdefghijklmn"
K = 8
# Their own code does not take float64: the reference is autograd in float32, as well.
SINGLE = {"inkling2_text", "xglm"}
BY_DECODING, BY_THE_WHOLE_PASS, AMONG_ALL, NOT_TINY = (
    "measured by decoding",
    "measured by full forward passes",
    "measured, bidirectional",
    "not built tiny",
)
# What a refusal says, and the row of the page that it belongs to.
REFUSALS = {
    "parallel residual streams": "refused: “parallel residual streams”",
    "no stack of blocks with one": "refused: “no stack of blocks with one residual stream”",
    "stacks of blocks": "refused: “stacks of blocks”",
    "passes hidden states of shape": "refused: “passes hidden states of shape”",
}


def numbers(text: str) -> list[int]:
    return [3 + (ord(c) * 7) % 190 for c in text]


def listed() -> dict[str, tuple[int, list[str]]]:
    """The page's table: what happens → how many, and which kinds."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## Every causal language model of transformers") :]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1].isdigit():
            found[cells[0]] = (int(cells[1]), re.findall(r"`([^`]+)`", cells[2]))
    return found


def outcome(kind: str, model: PreTrainedModel, caplog: pytest.LogCaptureFixture) -> str:
    """What happens to a model, with its numbers compared with autograd through the whole model."""
    try:
        with caplog.at_level(logging.INFO, "blockcoupling"):
            ds = bc.measure(model, numbers, [PROMPT], k=K)
    except UserError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert type(model).__name__ in sentence
        return next(row for words, row in REFUSALS.items() if words in sentence)
    ids = torch.tensor([numbers(PROMPT)])
    exact = torch.float32 if kind in SINGLE else torch.float64
    s, wanted = coupling(jacobians(model, find_blocks(model, ids).path, ids, dtype=exact), K)
    # float32 against float64: roundings and, in A, those over the gaps of singular values.
    np.testing.assert_allclose(ds["S"][0, 0], s, rtol=0, atol=1e-3 * s.max())
    assert float(bc.coupling(ds, K)[0, 0]) == pytest.approx(wanted, abs=1e-3)
    if not ds.attrs["causal"]:
        assert ds["own_loss"].isnull().all()
        return AMONG_ALL
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()
    assert ds["own_loss"].item() == pytest.approx(loss, rel=1e-5)  # both float32
    whole = "measured by the full forward pass" in caplog.text
    return BY_THE_WHOLE_PASS if whole else BY_DECODING


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_right_or_refused(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    (row,) = [row for row, (_, kinds) in listed().items() if kind in kinds]
    if kind in NOT_BUILT:
        assert row == NOT_TINY
        return
    model = tiny(kind)
    assert sum(parameter.numel() for parameter in model.parameters()) < MOST_WEIGHTS
    assert outcome(kind, model, caplog) == row


@pytest.mark.parametrize("kind", sorted(NOT_BUILT))
def test_what_is_not_built_cannot_be(kind: str) -> None:
    """Once it can, it is to be walked like the others."""
    try:
        weights = sum(parameter.numel() for parameter in tiny(kind).parameters())
    except Exception:  # of any kind: it is the library's own
        return
    assert weights >= MOST_WEIGHTS


def test_encoders_that_are_told_to_look_back_are_measured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same classes as decoders, which is what they are for in this list."""
    _, kinds = listed()[AMONG_ALL]
    assert len(kinds) > 10
    for kind in kinds:
        caplog.clear()
        model = tiny(kind, is_decoder=True)
        assert outcome(kind, model, caplog) in (BY_DECODING, BY_THE_WHOLE_PASS), kind


def test_the_page_counts_what_it_lists() -> None:
    table = listed()
    assert set(table) == {BY_DECODING, BY_THE_WHOLE_PASS, AMONG_ALL, NOT_TINY, *REFUSALS.values()}
    for row, (count, kinds) in table.items():
        assert count == len(kinds), row
    every = [kind for _, kinds in table.values() for kind in kinds]
    assert sorted(every) == KINDS
    assert sorted(table[NOT_TINY][1]) == sorted(NOT_BUILT)


def test_the_page_says_how_many_of_each() -> None:
    table = listed()
    built = len(KINDS) - len(NOT_BUILT)
    right = sum(table[row][0] for row in (BY_DECODING, BY_THE_WHOLE_PASS, AMONG_ALL))
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"The {len(KINDS)} kinds" in text
    assert f"Of the {built} that can be built this way, {right} are right" in text
    assert f"{built - right} are refused, and none is wrong" in text
