"""Image processors that scale pixels before they resize them, without torchvision.

transformers has DINOv3's for torchvision alone, whose wheels have to fit torch's. What it computes
is torch's own interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL.Image import Image
    from torch import Tensor

_MODES = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# What may be switched on in the settings of a processor, and is computed here.
_STEPS = frozenset(("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"))


class FloatImages:
    """x ↦ (resize(x / 255) − mean) / deviation, in float32.

    Args:
        settings: of a processor for which `has` is true.
    """

    STANDS_FOR: ClassVar = frozenset(("DINOv3ViTImageProcessor",))
    """Classes of transformers that compute this."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._asked = settings

    @staticmethod
    def has(settings: Mapping[str, Any]) -> bool:
        """Whether everything that settings ask for is computed here."""
        steps = {key for key, value in settings.items() if key.startswith("do_") and value}
        size = settings.get("size")
        return (
            steps <= _STEPS
            and isinstance(size, dict)
            and {key for key, value in size.items() if value} == {"height", "width"}
            and settings.get("resample", 2) in _MODES
        )

    def __call__(
        self, images: Image, return_tensors: str = "pt"
    ) -> dict[str, Float[Tensor, "1 channel height width"]]:
        """The pixel values of one image."""
        import numpy as np
        import torch
        from torch.nn.functional import interpolate

        asked = self._asked
        values = torch.from_numpy(np.asarray(images).astype(np.float32))
        values = (values[None] if values.ndim == 2 else values.permute(2, 0, 1))[None]
        if asked.get("do_rescale", True):
            values = values * asked.get("rescale_factor", 1 / 255)
        size = asked["size"]["height"], asked["size"]["width"]
        if asked.get("do_resize", True) and tuple(values.shape[2:]) != size:
            mode = _MODES[asked.get("resample", 2)]
            values = interpolate(values, size, mode=mode, align_corners=False, antialias=True)
        if asked.get("do_normalize", True):
            mean, deviation = (
                torch.tensor(asked.get(key, default)).view(1, -1, 1, 1)
                for key, default in (
                    ("image_mean", (0.485, 0.456, 0.406)),
                    ("image_std", (0.229, 0.224, 0.225)),
                )
            )
            values = (values - mean) / deviation
        return {"pixel_values": values}
