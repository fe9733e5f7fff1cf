"""Training a ViT from scratch, from epoch to epoch, by DeiT's recipe (arXiv 2012.12877)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from blockcoupling.config.vision import VisionTraining
from blockcoupling.lab.training.augmentation import Augmenting
from blockcoupling.lab.training.image_data import (
    ImageData,
    channel_statistics,
    image_data,
    normalised,
)
from blockcoupling.lab.training.mixing import Mixing
from blockcoupling.lab.training.parallel import ALONE, Part
from blockcoupling.lab.training.run import Run, another
from blockcoupling.lab.training.schedule import warmed_cosine
from blockcoupling.lab.training.stochastic_depth import drop_vit_branches

BETAS = (0.9, 0.999)

_DRAW = "draw"  # the state of the generator that says what happens to images
_TALLY = "tally"  # the epoch so far: sums of losses and of right answers, images
_WATCHED_AT_ONCE = 500


def new_vit(shape: VisionTraining, size: int, classes: tuple[str, ...]) -> Any:
    """The untrained model, in transformers' own initialisation for the seed.

    Args:
        shape: of the model.
        size: height and width of its images.
        classes: their names.
    """
    config = ViTConfig(
        image_size=size,
        patch_size=shape.patch,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden_size,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        initializer_range=shape.initializer_range,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        return ViTForImageClassification._from_config(config, attn_implementation="sdpa")


def decayed(model: torch.nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters with weight decay, and those without: biases, norms, position, class."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in model.named_parameters():
        spared = parameter.ndim < 2 or name.endswith(("position_embeddings", "cls_token"))
        parts[spared].append(parameter)
    return parts


class VitRun(Run):
    """The state of an image model's training; its checkpoints are epochs.

    AdamW; the learning rate rises linearly over the first epochs and falls along a cosine. In
    bfloat16 where there is a GPU, but for the weights. The loss is that of the training's own
    images and targets, which are augmented and mixed.

    Args:
        shape: what is trained, and how.
        name: of the model, for messages.
        data: the images, where they have been read already.
        part: that this process has of each batch. Every process draws, augments and mixes all of
            it, which costs little compared with the model, so that all see the same batches as a
            single process.

    Attributes:
        log: a row an epoch: epoch, learning_rate (at its end), loss and accuracy (of the training's
            batches; the class that a target has most of is the right one), watched_loss and
            watched_accuracy (of held-out images as they are, after the epoch).
    """

    def __init__(
        self,
        shape: VisionTraining,
        name: str,
        data: ImageData | None = None,
        part: Part = ALONE,
    ) -> None:
        self.shape, self.log = shape, list[dict[str, Any]]()
        data = image_data(shape) if data is None else data
        self._device = part.device
        self._mean, self._std = channel_statistics(data.images)
        self._data = data._replace(
            images=data.images.to(self._device), labels=data.labels.to(self._device)
        )
        self._size = data.images.shape[-1]
        self.updates_per_epoch = updates_per_epoch(shape, len(data.labels))
        model = new_vit(shape, self._size, data.classes)
        if shape.stochastic_depth:
            drop_vit_branches(model.vit.layers, shape.stochastic_depth, part)
        model.to(self._device).train()
        draw = torch.Generator().manual_seed(another(shape.seed, 2))
        mean, std = torch.tensor(self._mean), torch.tensor(self._std)
        self._augmented = Augmenting(shape.augmentation, mean, std, draw)
        self._mixed = Mixing(shape.augmentation, len(data.classes), draw)
        self._tally = torch.zeros(3, dtype=torch.float64)
        matrices, others = decayed(model)
        groups = [
            {"params": matrices, "weight_decay": shape.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=shape.learning_rate, betas=BETAS, fused=True)
        total = shape.epochs * self.updates_per_epoch
        super().__init__(name, model, optimizer, total, shape.seed, {_DRAW: draw}, part)

    def learning_rate(self, step: int) -> float:
        """Learning rate at an update, numbered from 1."""
        shape = self.shape
        final = shape.final_learning_rate / shape.learning_rate
        warmup = shape.warmup * self.updates_per_epoch
        return shape.learning_rate * warmed_cosine(step, self._total, warmup, final)

    def batch_loss(self, step: int) -> tuple[Tensor, float]:
        """The loss of a batch of images, each augmented, then mixed with another."""
        epoch, batch = divmod(step - 1, self.updates_per_epoch)
        # An order of its own for each epoch, that needs no other's to be known.
        order = torch.Generator().manual_seed(another(self.shape.seed, 3 + epoch))
        first, count = batch * self.shape.batch, self.shape.batch
        chosen = torch.randperm(len(self._data.labels), generator=order)[first : first + count]
        chosen = chosen.to(self._device)
        images = self._augmented(self._data.images[chosen].float() / 255)
        images, targets = map(self.part.of, self._mixed(images, self._data.labels[chosen]))
        with self.random(), self._precision():
            logits = self.model(pixel_values=images).logits
        logits = logits.float()
        loss = cross_entropy(logits, targets)
        right = (logits.argmax(1) == targets.argmax(1)).sum()
        own = [loss.item() * len(targets), float(right), len(targets)]
        tally = self.part.summed(torch.tensor(own, dtype=torch.float64))
        self._tally += tally
        return loss, float(tally[0] / tally[2])

    def after_update(self) -> None:
        """Add a row to the log at the end of an epoch."""
        epoch, begun = divmod(self.step, self.updates_per_epoch)
        if begun:
            return
        loss, right, count = self._tally.tolist()
        row = {
            "epoch": epoch,
            "learning_rate": self.learning_rate(self.step),
            "loss": loss / count,
            "accuracy": right / count,
        }
        self.log.append(row | self._watched())
        self._tally.zero_()

    def _watched(self) -> dict[str, float]:
        if not len(self._data.watched):
            return {}
        self.model.eval()
        loss, right = 0.0, 0
        with torch.inference_mode(), self._precision():
            for start in range(0, len(self._data.watched), _WATCHED_AT_ONCE):
                images = self._data.watched[start : start + _WATCHED_AT_ONCE]
                labels = self._data.watched_labels[start : start + _WATCHED_AT_ONCE]
                labels = labels.to(self._device)
                pixels = normalised(images, self._mean, self._std).to(self._device)
                logits = self.model(pixel_values=pixels).logits.float()
                loss += cross_entropy(logits, labels, reduction="sum").item()
                right += int((logits.argmax(1) == labels).sum())
        self.model.train()
        count = len(self._data.watched)
        return {"watched_loss": loss / count, "watched_accuracy": right / count}

    def _precision(self) -> Any:
        if self._device == "cpu":
            return nullcontext()
        return torch.autocast(self._device, torch.bfloat16)

    def also_kept(self) -> dict[str, Tensor]:
        """The epoch so far."""
        return {_TALLY: self._tally}

    def also_loaded(self, kept: Mapping[str, Tensor], model: Path) -> None:
        """Resume the epoch, and the log saved with the weights."""
        self._tally = kept[_TALLY]
        self.log = json.loads((model / "training.json").read_text())["log"]

    def save_model(self, directory: Path) -> None:
        """Write the model as an ordinary Hugging Face directory, with its provenance."""
        self.model.save_pretrained(directory)
        processor = ViTImageProcessorPil(
            size={"height": self._size, "width": self._size},
            image_mean=self._mean,
            image_std=self._std,
        )
        processor.save_pretrained(directory)
        epoch, begun = divmod(self.step, self.updates_per_epoch)
        self.write_facts(
            directory,
            epoch=self.step / self.updates_per_epoch if begun else epoch,
            images=self.step * self.shape.batch,
            data=self._data.source,
            data_sha256=self._data.digest,
            training=self.shape.model_dump(mode="json"),
            log=self.log,
        )


def updates_per_epoch(shape: VisionTraining, images: int) -> int:
    """Number of whole batches; remaining images wait for another epoch's order."""
    return images // shape.batch
