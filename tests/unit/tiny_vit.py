"""A training of a tiny ViT on digits, of seconds: everything that can be random is."""

from typing import Any

TINY: dict[str, Any] = {
    "name": "tiny",
    "architecture": "vit",
    "images": {"source": "digits"},
    "image_count": 200,
    "patch": 4,
    "hidden_size": 16,
    "blocks": 2,
    "heads": 2,
    "batch": 60,  # three updates an epoch, 20 images left over
    "epochs": 3,
    "warmup": 1,
    "learning_rate": 1.0e-2,
    "dropout": 0.1,
    "stochastic_depth": 0.3,
    "initializer_range": 0.1,
    "augmentation": {"crop": 1, "randaugment": 1},
    "watched": 50,
    "checkpoints": [0, 1, 3],
}
