"""The least that a block can be, and a model of such blocks."""

from collections.abc import Callable
from typing import Any

from architectures import VOCABULARY
from torch import Tensor, nn

D = 8


class Block(nn.Module):
    """x + W x, returned in the way that is asked for."""

    def __init__(self, returns: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.linear = nn.Linear(D, D)
        self.returns = returns

    def forward(self, hidden: Tensor) -> Any:
        return self.returns(hidden + self.linear(hidden))


class Toy(nn.Module):
    """Embedding, blocks in an order, and something to do between them."""

    def __init__(
        self,
        blocks: list[nn.Module],
        order: list[int] | None = None,
        between: Callable[[Tensor], Tensor] = lambda x: x,
        keyword: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, D)
        self.blocks = nn.ModuleList(blocks)
        self.order = list(range(len(blocks))) if order is None else order
        self.between, self.keyword = between, keyword

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for index in self.order:
            block = self.blocks[index]
            x = block(hidden=x) if self.keyword else block(x)
            if isinstance(x, tuple | list):
                x = max((v for v in x if v is not None), key=Tensor.numel)
            x = self.between(x)
        return x
