"""What some settings can be: names that the core and the configuration share (no imports)."""

from typing import Literal

Method = Literal["auto", "dense", "krylov"]
"""How singular triples are found."""

Context = Literal["auto", "decode", "full"]
"""How a block is called again."""

Matmul = Literal["float32", "tf32", "bfloat16"]
"""Precision of a block's matrix products."""

Modality = Literal["text", "image"]
"""Input of a model, and content of a dataset."""

Precision = Literal["float32", "float64"]
"""Precision of weights and products."""

Part = Literal["block", "attention", "mlp"]
"""A block, or one of its halves."""

PARTS = ("attention", "mlp", "detached")
"""What can be measured of each block in addition to the block itself."""

DEFAULT_K = 50
"""Singular triples that are kept by default."""

TABULATED_K = (1, 2, 5, 10, 20, 30, 50)
"""Numbers of singular vectors for which mis-coupling is tabulated by default."""
