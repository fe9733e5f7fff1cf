"""Blocks that a `Sequential` or `ModuleDict` holds, as in the ViTs of timm and torchvision."""

import numpy as np
import pytest
import torch
from bidirectional import exact_jacobian, pixels
from torch import Tensor, nn
from toy_model import Block, Toy

import blockcoupling as bc
from blockcoupling.errors import UserError
from blockcoupling.transformer.blocks import find_blocks

WIDTH, HEADS = 16, 2


class ViTBlock(nn.Module):
    """Attention and a small network, each after a norm, in a `Sequential` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of 4 × 4 pixels and a class token; a head that is a `Sequential`, too."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 10, WIDTH))
        self.blocks = nn.Sequential(*(ViTBlock() for _ in range(3)))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.blocks(x))[:, 0]


def test_a_vit_with_blocks_in_a_sequential() -> None:
    torch.manual_seed(1)
    model = ViT().double().eval()
    image = pixels(1, seed=3)
    found = bc.measure(model, images=image, k=4, tokens=["last", "class"])
    for pair, token in enumerate((9, 0)):
        exact = [passed(model, image, block, token) for block in range(3)]
        wanted = np.stack([np.linalg.svd(j)[1][:4] for j in exact])
        np.testing.assert_allclose(found["S"][0, pair], wanted, rtol=1e-5)  # stored in float32


def passed(model: ViT, image: Tensor, block: int, token: int) -> np.ndarray:
    """A block's residual Jacobian by autograd through the model's own forward."""
    wrapped = nn.Module()

    def forward(pixel_values: Tensor) -> Tensor:
        return model(pixel_values)

    wrapped.forward = forward  # type: ignore[method-assign]
    wrapped.blocks = model.blocks
    return exact_jacobian(wrapped, "blocks", image, block, token, token).numpy()


def test_a_module_list_is_preferred_and_layers_are_not_blocks() -> None:
    model = Toy([Block(), Block()])
    model.between = nn.Sequential(Block(), Block())  # type: ignore[assignment]
    with pytest.raises(UserError, match="the hidden state is changed between blocks 1 and 2"):
        find_blocks(model, torch.tensor([[1, 2, 3]]))
    model.between = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))  # type: ignore[assignment]
    with pytest.raises(UserError, match="the hidden state is changed between blocks 1 and 2"):
        find_blocks(model, torch.tensor([[1, 2, 3]]))


def test_blocks_in_a_module_dict() -> None:
    model = Toy([])
    model.layers = nn.ModuleDict({"first": Block(), "second": Block()})
    model.between = lambda x: x
    model.forward = lambda input_ids: model.layers["second"](  # type: ignore[method-assign]
        model.layers["first"](model.embedding(input_ids))
    )
    assert find_blocks(model, torch.tensor([[1, 2, 3]])).path == "layers"


def test_noise_of_any_seed_is_an_image() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 12, 12)
    torch.manual_seed(1)
    found = bc.measure(ViT().eval(), images=image, k=2, tokens="class")
    assert found["S"].values.min() > 0
