"""Bidirectional models, against autograd through the whole of them in float64."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from bidirectional import (
    ENCODERS,
    FAMILIES,
    LONG,
    VISION,
    exact_jacobian,
    given_to,
    hierarchy,
    ids_of,
    pixels,
    small_encoder,
)
from torch import Tensor, nn

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.reduce.summary import summary
from blockcoupling.store.svd import last_token
from blockcoupling.transformer.blocks import find_blocks

TEXT = "abcdefgh"[:LONG]
SHORT = "xyz"
# Singular triples are stored in float32: roundings of one product of them.
STORED = 2e-6
# Their attention is not that of transformers' interface: single tokens cannot be separated.
BY_THE_WHOLE_PASS = {"t5_encoder"}


def jacobians(ds: xr.Dataset, pair: int, prompt: int = 0) -> np.ndarray:
    """(block, d, d), put together again from all of their triples."""
    one = ds.isel(prompt=prompt, pair=pair)
    return np.einsum("bek,bk,bfk->bef", *(one[name].values.astype(float) for name in "USV"))


def agree(found: np.ndarray, wanted: np.ndarray) -> None:
    for block, (mine, exact) in enumerate(zip(found, wanted, strict=True)):
        size = np.linalg.norm(exact)
        if not size:  # of tokens in two windows
            assert not mine.any()
            continue
        error = np.linalg.norm(mine - exact) / size
        assert error < STORED, f"block {block + 1}: {error:.1e}"


def reference(
    model: nn.Module, path: str, blocks: int, given: Tensor, a: int, b: int
) -> np.ndarray:
    return np.stack([exact_jacobian(model, path, given, i, a, b).numpy() for i in range(blocks)])


def measured(family: str, model: Any, tokens: Any, **settings: Any) -> xr.Dataset:
    settings = {"k": 32, "vectors": True, "tokens": tokens, **settings}
    if family in ENCODERS:
        return bc.measure(model, ids_of, [TEXT], **settings)
    return bc.measure(model, images=given_to(family), **settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_token_and_pairs_in_both_directions(family: str) -> None:
    model = small_encoder(family)
    given = torch.tensor([ids_of(TEXT)]) if family in ENCODERS else given_to(family)
    blocks = find_blocks(model, given)
    tokens = [0, 3, -1, [1, 4], [4, 1]]
    ds = measured(family, model, tokens)
    last = int(ds["tokens"][0]) - 1
    for pair, (a, b) in enumerate([(0, 0), (3, 3), (last, last), (1, 4), (4, 1)]):
        exact = reference(model, blocks.path, len(blocks), given, a, b)
        agree(jacobians(ds, pair), exact)
        assert (int(ds["token_in"][0, pair]), int(ds["token_out"][0, pair])) == (a, b)
    apart = family not in BY_THE_WHOLE_PASS
    np.testing.assert_array_equal(ds["context_apart"][0, :, 0], [apart, apart, apart, False, False])
    assert ds.attrs["causal"] is False


@pytest.mark.parametrize("family", VISION)
def test_the_mean_is_the_mean_over_patches(family: str) -> None:
    model, given, own = small_encoder(family), given_to(family), VISION[family][2]
    blocks = find_blocks(model, given)
    ds = measured(family, model, ["mean", "last"])
    last = int(ds["tokens"][0]) - 1
    patches = [reference(model, blocks.path, 3, given, t, t) for t in range(own, last + 1)]
    assert len(patches) == 9
    agree(jacobians(ds, 0), np.mean(patches, axis=0))
    agree(jacobians(ds, 1), patches[-1])
    assert ds["token_in"].values.tolist() == ds["token_out"].values.tolist() == [[-2, last]]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "siglip"])
def test_the_mean_where_every_patch_takes_the_whole_pass(family: str) -> None:
    """Also with products: the iteration asks for means of them."""
    model = small_encoder(family)
    wanted = measured(family, model, "mean", k=4)
    for settings in ({"context": "full"}, {"context": "full", "method": "krylov"}):
        found = measured(family, model, "mean", k=4, **settings)
        np.testing.assert_allclose(found["S"], wanted["S"], rtol=1e-5)
        assert not found["context_apart"].any()
    iterated = measured(family, model, "mean", k=4, method="krylov")
    np.testing.assert_allclose(iterated["S"], wanted["S"], rtol=1e-5)
    assert iterated["context_apart"].all()


@pytest.mark.parametrize("family", ["bert", "albert", "modernbert", "vit"])
def test_what_stands_beside_a_prompt_changes_nothing(family: str) -> None:
    """Prompts of other lengths in one batch, and the order of them."""
    model = small_encoder(family)
    if family in ENCODERS:
        given: Sequence[Any] = [TEXT, SHORT, "mnopqrstuvwx"]
        take: Callable = lambda some: bc.measure(model, ids_of, some, k=4, tokens=[0, -1])  # noqa: E731
    else:
        given = pixels(3)
        take = lambda some: bc.measure(model, images=some, k=4, tokens=[0, -1])  # noqa: E731
    together = take(given)
    for i in range(3):
        alone = take(given[i : i + 1])
        for name in ("S", "A"):  # float32 of float64
            found, wanted = together[name][i].values, alone[name][0].values
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * abs(wanted).max())


def test_trajectories_are_those_of_every_token() -> None:
    model = small_encoder("vit")
    image = pixels(1)
    states = torch.stack(model(image, output_hidden_states=True).hidden_states[:-1])[:, 0].numpy()
    ds = bc.measure(model, images=image)
    steps = np.diff(states, axis=0)
    units = (steps / np.linalg.norm(steps, axis=-1, keepdims=True)).sum(axis=0)
    # One block fewer: the library's last state has passed the final norm.
    lss = len(steps) / np.linalg.norm(units, axis=-1)
    gram = ds["gram"].isel(prompt=0, state=slice(1, 3), state_other=slice(1, 3)).values
    sizes = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    total = np.einsum("tij,ti,tj->t", gram, 1 / sizes, 1 / sizes)
    np.testing.assert_allclose(2 / np.sqrt(total), lss, rtol=1e-10)


# ------------------------------------------------------------------ hierarchical


def test_a_stage_of_a_hierarchy() -> None:
    model, image = hierarchy(), pixels(1, size=32)
    for stage, (blocks, tokens) in enumerate([(2, 64), (3, 16)], start=1):
        path = f"{'encoder.layers' if hasattr(model, 'encoder') else 'layers'}.{stage - 1}.blocks"
        ds = bc.measure(
            model,
            images=image,
            stage=stage,
            k=16 * stage,
            vectors=True,
            tokens=["last", [0, 1], [1, 0]],
        )
        assert ds.attrs["stage"] == stage
        assert int(ds["tokens"][0]) == tokens
        last = tokens - 1
        for pair, (a, b) in enumerate([(last, last), (0, 1), (1, 0)]):
            agree(jacobians(ds, pair), reference(model, path, blocks, image, a, b))


def test_a_hierarchy_as_a_whole_is_refused() -> None:
    with pytest.raises(UserError, match="is hierarchical: its residual stream changes its width"):
        bc.measure(hierarchy(), images=pixels(1, size=32))
    with pytest.raises(UserError, match="stage 3: SwinModel has 2 stacks of blocks; choose 1 … 2"):
        bc.measure(hierarchy(), images=pixels(1, size=32), stage=3)
    with pytest.raises(UserError, match="stage 1: ViTModel has one stack of blocks; leave stage"):
        bc.measure(small_encoder("vit"), images=pixels(1), stage=1)
    with pytest.raises(UserError, match="'class': this model has no such token"):
        bc.measure(hierarchy(), images=pixels(1, size=32), stage=2, tokens="class")


# ------------------------------------------------------------------ never silently wrong


class Mixing(nn.Module):
    """A block that lets its tokens act on each other outside of attention, too."""

    def __init__(self, block: nn.Module, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.block, self.mix = block, mix

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.block(hidden, *args, **kwargs) + self.mix(hidden)


def mean(hidden: Tensor) -> Tensor:
    return 0.3 * hidden.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "mix", [mean, lambda x: mean(x) - mean(x).detach()], ids=["state", "gradient alone"]
)
def test_a_block_that_mixes_tokens_otherwise_is_measured_as_a_whole(
    mix: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """A token alone has another state there, or the same state and another gradient."""
    model, image = small_encoder("vit"), pixels(1)
    path = find_blocks(model, image).path
    stack = model.get_submodule(path)
    stack[1] = Mixing(stack[1], mix)
    with caplog.at_level(logging.INFO, "blockcoupling"):
        ds = bc.measure(model, images=image, k=32, vectors=True, tokens=[2])
    agree(jacobians(ds, 0), reference(model, path, 3, image, 2, 2))
    assert not ds["context_apart"].any()
    assert "measured by the full forward pass" in caplog.text


def test_every_batch_is_compared_again() -> None:
    """What mixes its tokens from the second image on is seen there."""
    model, images = small_encoder("vit"), pixels(3)
    path = find_blocks(model, images[:1]).path
    stack = model.get_submodule(path)
    bright = images[1:].clone() + 4

    def mix(hidden: Tensor) -> Tensor:
        return (mean(hidden) - mean(hidden).detach()) * (hidden.mean() * 0 + float(flag[0]))

    flag = [0.0]
    stack[1] = Mixing(stack[1], mix)
    first = bc.measure(model, images=images[:1], k=4, batch=1)
    assert first["context_apart"].all()
    flag[0] = 1.0
    second = bc.measure(model, images=bright, k=4, batch=1)
    assert not second["context_apart"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_is_as_good(dtype: torch.dtype) -> None:
    wanted = measured("bert", small_encoder("bert"), [2], k=8)
    found = measured("bert", small_encoder("bert").to(dtype), [2], k=8)
    np.testing.assert_allclose(found["S"], wanted["S"], rtol=1e-4)  # sums over d in float32
    assert found["context_apart"].all()


# ------------------------------------------------------------------ marks and tokens


class Marks:
    """A tokenizer that puts a mark before a text and one behind it."""

    cls_token_id, sep_token_id = 1, 2

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        own = [3 + ord(c) % 50 for c in text]
        return {"input_ids": [1, *own, 2] if add_special_tokens else own}

    def decode(self, ids: list[int]) -> str:
        return f"<{ids[0]}>"


def test_an_encoder_keeps_its_marks_and_its_last_token_is_the_texts() -> None:
    ds = bc.measure(small_encoder("bert"), Marks(), [TEXT, SHORT], k=4)
    assert ds["tokens"].values.tolist() == [LONG + 2, len(SHORT) + 2]
    assert ds["token_in"].values.tolist() == [[LONG], [len(SHORT)]]
    assert last_token(ds).values.tolist() == [LONG, len(SHORT)]
    assert ds["token_text"].values[0, [0, LONG + 1]].tolist() == ["<1>", "<2>"]


def test_tokens_of_an_image_by_name() -> None:
    images, deit = pixels(2), small_encoder("deit")
    ds = bc.measure(deit, images=images, k=4, tokens=["class", "last", "mean", ["class", "last"]])
    assert ds["token_in"].values.tolist() == [[0, 10, -2, 0]] * 2
    assert ds["token_out"].values.tolist() == [[0, 10, -2, 10]] * 2
    assert ds["token_text"].values[0].tolist() == ["class", "extra 1", *map(str, range(9))]
    assert ds["prompt"].values.tolist() == ["i0", "i1"]
    assert ds.attrs["modality"] == "image"
    by_default = bc.measure(deit, images=images, k=4)
    np.testing.assert_allclose(by_default["S"][:, 0], ds["S"][:, 1], rtol=1e-5)
    # The mean over patches is a row like any other, without a way through the blocks of its own.
    table = summary(ds, 4)
    assert table["token_in"].tolist() == [0, 10, -2, 0] * 2
    assert table["line_shape_score"].isna().tolist() == [False, False, True, False] * 2
    assert np.isfinite(table["coupling"]).all()


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("family", "asked", "sentence"),
    [
        ("siglip", {"tokens": "class"}, "'class': this model has no such token"),
        ("vit", {"tokens": [11]}, "token 11 is out of range: the prompt has tokens 0 … 9"),
        ("vit", {"context": "decode"}, "ViTModel is bidirectional, so there is no decoding"),
        ("bert", {"tokens": "class"}, "'class' is for images"),
        ("bert", {"tokens": "mean"}, "'mean' is for images"),
        ("bert", {"context": "decode"}, "BertModel is bidirectional, so there is no decoding"),
    ],
)
def test_what_is_not_there_is_refused(family: str, asked: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        measured(family, small_encoder(family), **({"tokens": [1]} | asked), k=4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: bc.measure(small_encoder("vit"), ids_of, ["a"]),
            "ViTModel expects images: ",
        ),
        (
            lambda: bc.measure(small_encoder("bert"), images=pixels(1)),
            "BertModel expects texts: ",
        ),
        (lambda: bc.measure(small_encoder("vit")), "either a tokenizer and prompts, or images"),
        (lambda: bc.measure(small_encoder("bert"), None, "a"), "either a tokenizer and prompts"),
        (
            lambda: bc.measure(small_encoder("vit"), ids_of, "a", images=pixels(1)),
            "either a tokenizer and prompts, or images",
        ),
        (
            lambda: bc.measure(small_encoder("vit"), images=pixels(1, size=20)),
            r"ViTModel cannot be run on an image of 3 × 20 × 20 \(channel, height, width\) alone: ",
        ),
        (
            lambda: bc.measure(small_encoder("vit"), images=pixels(1)[:, :1]),
            "cannot be run on an image of 1 × 12 × 12",
        ),
        (lambda: bc.measure(small_encoder("vit"), images=pixels(1)[0]), r"of shape \(3, 12, 12\)"),
        (lambda: bc.measure(small_encoder("vit"), images="cat.png"), "not a str"),
        (
            lambda: bc.measure(small_encoder("vit"), images=pixels(1).byte()),
            r"floating-point numbers, not uint8",
        ),
        (
            lambda: bc.measure(
                small_encoder("vit"), images=pixels(2) / torch.tensor([1.0, 0])[:, None, None, None]
            ),
            "image 1 has pixel values that are not finite",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
