"""Every causal language model of transformers is measured right, or refused in a sentence.

What happens to each is said in docs/models.md, and held here to be so. Each is saved with weights
of bfloat16 precision and random buffers, and measured from its files: in memory, and streamed.
"""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from attention_of_a_user import NAME, registered
from page_of_models import PAGE, listed
from safetensors.torch import load_file, save_file
from saved_models import loaded, saved
from tiny_causal_lms import KINDS, MOST_WEIGHTS, NOT_BUILT, tiny
from transformers import PreTrainedModel
from whole_model import coupling, jacobians

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.running import run
from blockcoupling.transformer.streaming import stream_model
from blockcoupling.transformer.weight_files import weight_problems

PROMPT = "abcdefghijklmn"
SHORT = PROMPT[:6]
K = 8
# Their own code does not take float64: the reference is autograd in float32, as well.
SINGLE = {"inkling2_text", "xglm"}
BY_DECODING, BY_THE_WHOLE_PASS, AMONG_ALL, NOT_TINY = (
    "measured by decoding",
    "measured by full forward passes",
    "measured, bidirectional",
    "not built tiny",
)
TITLE, STREAMING = "Every causal language model of transformers", "Streamed"
STREAMED = "streamed, with the numbers in memory"
UNSTREAMED = {
    "converted while loading": "refused: “converted while loading”",
    "only causal language models": "refused: “only causal language models can be streamed”",
}
# What a refusal says, and the row of the page that it belongs to.
REFUSALS = {
    "parallel residual streams": "refused: “parallel residual streams”",
    "no stack of blocks with one": "refused: “no stack of blocks with one residual stream”",
    "stacks of blocks": "refused: “stacks of blocks”",
    "passes hidden states of shape": "refused: “passes hidden states of shape”",
}


def numbers(text: str) -> list[int]:
    return [3 + (ord(c) * 7) % 190 for c in text]


def demand_right(
    ds: xr.Dataset, kind: str, model: PreTrainedModel, prompt: str = PROMPT, **how: str
) -> None:
    """Compare with autograd through the whole model as it is."""
    ids = torch.tensor([numbers(prompt)])
    exact = torch.float32 if kind in SINGLE else torch.float64
    path = find_blocks(model, ids).path
    s, wanted = coupling(jacobians(model, path, ids, dtype=exact, **how), K)
    # float32 against float64: roundings and, in A, those over the gaps of singular values.
    np.testing.assert_allclose(ds["S"][0, 0], s, rtol=0, atol=1e-3 * s.max())
    assert float(bc.coupling(ds, K)[0, 0]) == pytest.approx(wanted, abs=1e-3)


def outcome(
    kind: str, model: PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> tuple[str, xr.Dataset | None]:
    """What happens to a model, and its numbers, which are right."""
    try:
        with caplog.at_level(logging.INFO, "blockcoupling"):
            ds = bc.measure(model, numbers, [PROMPT], k=K)
    except UserError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert type(model).__name__ in sentence
        return next(row for words, row in REFUSALS.items() if words in sentence), None
    demand_right(ds, kind, model)
    if not ds.attrs["causal"]:
        assert ds["own_loss"].isnull().all()
        return AMONG_ALL, ds
    ids = torch.tensor([numbers(PROMPT)])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()
    assert ds["own_loss"].item() == pytest.approx(loss, rel=1e-5)  # both float32
    whole = "measured by the full forward pass" in caplog.text
    return BY_THE_WHOLE_PASS if whole else BY_DECODING, ds


def streamed(model: PreTrainedModel, in_memory: xr.Dataset | None, directory: Path) -> str | None:
    """What happens to the files when they are streamed: the numbers are those in memory."""
    try:
        ds = bc.measure(stream_model(directory / "bfloat16"), numbers, [PROMPT], k=K)
        assert in_memory is not None
    except UserError as error:
        if in_memory is None:
            return None
        return next(row for words, row in UNSTREAMED.items() if words in str(error))
    for name in ("S", "A", "gram", "own_loss"):  # the same sums in float32
        scale = float(abs(in_memory[name]).max())
        np.testing.assert_allclose(ds[name], in_memory[name], rtol=0, atol=1e-4 * scale)
    whole = stream_model(directory / "float32")
    with torch.no_grad(), whole.weights.on_entry():
        found, wanted = (
            run(each, torch.tensor([numbers(PROMPT)]), use_cache=False)[0]
            for each in (whole.model, model)
        )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    return STREAMED


def refuse_what_is_added(path: str, directory: Path, streams: bool) -> None:
    """Scales, and weights inside a block that the model does not have, are refused by name."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    name = next(n for n, w in weights.items() if w.ndim > 1)
    scales = {f"{name}_scale": torch.ones(1)}
    save_file(weights | scales, file, metadata={"format": "pt"})
    assert f"{name}_scale" in weight_problems(directory)[0]
    if streams:
        extra = {f"{path}.1.of_another_model.weight": torch.ones(3)}
        save_file(weights | extra, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match=r"no use for: \S+\.1\.of_another_model\.weight"):
            stream_model(directory)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_right_or_refused(kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (row,) = [row for row, (_, kinds) in listed(TITLE).items() if kind in kinds]
    if kind in NOT_BUILT:
        assert row == NOT_TINY
        return
    built = tiny(kind)
    assert sum(parameter.numel() for parameter in built.parameters()) < MOST_WEIGHTS
    saved(built, tmp_path)
    model = loaded(type(built), tmp_path)
    found, ds = outcome(kind, model, caplog)
    assert found == row
    how = streamed(model, ds, tmp_path)
    assert [how] == [row for row, (_, kinds) in listed(STREAMING).items() if kind in kinds] or [
        None
    ]
    if ds is not None:
        path = find_blocks(model, torch.tensor([numbers(PROMPT)])).path
        refuse_what_is_added(path, tmp_path / "bfloat16", how == STREAMED)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_BUILT])
def test_an_attention_function_of_the_users_is_measured_or_refused(kind: str) -> None:
    """Eager attention's numbers are never given for it."""
    model = tiny(kind)
    with registered():
        model.set_attn_implementation(NAME)
        try:
            ds = bc.measure(model, numbers, [SHORT], k=K)
        except UserError as error:
            assert type(model).__name__ in str(error)
            return
        demand_right(ds, kind, model, SHORT, attention=NAME)


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
    _, kinds = listed(TITLE)[AMONG_ALL]
    assert len(kinds) > 10
    for kind in kinds:
        caplog.clear()
        model = tiny(kind, is_decoder=True)
        assert outcome(kind, model, caplog)[0] in (BY_DECODING, BY_THE_WHOLE_PASS), kind


def test_the_page_counts_what_it_lists() -> None:
    table = listed(TITLE)
    assert set(table) == {BY_DECODING, BY_THE_WHOLE_PASS, AMONG_ALL, NOT_TINY, *REFUSALS.values()}
    for row, (count, kinds) in table.items():
        assert count == len(kinds), row
    every = [kind for _, kinds in table.values() for kind in kinds]
    assert sorted(every) == KINDS
    assert sorted(table[NOT_TINY][1]) == sorted(NOT_BUILT)


def test_the_page_says_how_many_of_each() -> None:
    table = listed(TITLE)
    built = len(KINDS) - len(NOT_BUILT)
    right = sum(table[row][0] for row in (BY_DECODING, BY_THE_WHOLE_PASS, AMONG_ALL))
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"The {len(KINDS)} kinds" in text
    assert f"Of the {built} that can be built this way, {right} are right" in text
    assert f"{built - right} are refused, and none is wrong" in text
