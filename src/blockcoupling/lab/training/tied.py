"""Blocks that share their weights."""

from torch import Tensor, nn


def tie(layers: nn.ModuleList) -> None:
    """Share the parameters of the first block among all blocks."""
    for layer in layers[1:]:
        for name, parameter in layers[0].named_parameters():
            path, _, last = name.rpartition(".")
            setattr(layer.get_submodule(path), last, parameter)


def written_out(model: nn.Module) -> dict[str, Tensor]:
    """The model's state with a copy of each weight for every block, as in files."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
