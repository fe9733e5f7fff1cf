"""Pairs of tokens have names where all prompts were measured at the same ones."""

import numpy as np
import pytest
import xarray as xr

from blockcoupling.reduce.labels import pair_labels
from blockcoupling.store.svd import MEAN, NO_PAIR
from blockcoupling.transformer import tokens


def measured_at(pairs, lengths=(3, 3), image=False):
    """What says where prompts were measured: all at these pairs, or each at a list of its own."""
    pairs = np.array(pairs)
    pairs = np.broadcast_to(pairs, (len(lengths), *pairs.shape[-2:]))
    names = np.array([["class", "0", "1"]] * len(lengths), dtype=object)
    return xr.Dataset(
        coords={
            "pair": np.arange(pairs.shape[1]),
            "token_in": (("prompt", "pair"), pairs[..., 0]),
            "token_out": (("prompt", "pair"), pairs[..., 1]),
            "tokens": ("prompt", list(lengths)),
            **({"token_text": (("prompt", "token"), names)} if image else {}),
        },
        attrs={"modality": "image" if image else "text"},
    )


def both(a, b):
    return [[a, a], [b, b]]


@pytest.mark.parametrize(
    ("pairs", "image", "labels"),
    [
        (both(0, MEAN), True, ["class", "mean"]),
        (both(0, 2), True, ["class", "last"]),
        (both(1, 2), True, ["0", "last"]),
        (both(0, 2), False, ["0", "last"]),
        ([[0, 2], [2, 2]], False, ["0 to last", "last"]),
        ([[0, 0]], False, []),
        ([[t, t] for t in (0, 1, 2, 0, 1)], False, []),
    ],
)
def test_they_are_called_what_they_are(pairs, image, labels):
    assert pair_labels(measured_at(pairs, image=image)) == labels


def test_in_texts_of_different_length():
    ends = [both(2, 3), both(4, 5)]
    assert pair_labels(measured_at(ends, (4, 6))) == ["−2", "last"]
    assert pair_labels(measured_at([both(0, 3), both(0, 5)], (4, 6))) == ["0", "last"]
    middle = [both(1, 3), both(2, 5)]
    assert pair_labels(measured_at(middle, (4, 6))) == []
    fewer = [both(0, 3), both(5, NO_PAIR)]
    assert pair_labels(measured_at(fewer, (4, 6))) == []


def test_the_mean_over_patches_is_one_number_everywhere():
    assert MEAN == tokens.MEAN
