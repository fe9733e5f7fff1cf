"""Targets that are no single class: known values, and the shares that mixtures are made in."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.config.vision import Augmentation
from blockcoupling.lab.training.mixing import Mixing, box, soft_targets


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_smoothed_targets_have_torchs_own_loss() -> None:
    logits, labels = torch.randn(6, 5, generator=draw()), torch.arange(6) % 5
    ours = torch.nn.functional.cross_entropy(logits, soft_targets(labels, 5, 0.1))
    theirs = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    # The same sum in another order: float32's rounding.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert torch.equal(soft_targets(labels, 5), torch.eye(5)[labels])


@given(st.integers(0, 2**32 - 1), st.sampled_from([(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)]))
def test_a_target_says_what_an_image_is_made_of(seed: int, alphas: tuple[float, float]) -> None:
    # Images of one value each, the label: a mixture's mean is the mean of its target.
    labels = torch.arange(6)
    images = labels[:, None, None, None].float().expand(6, 3, 12, 10)
    section = Augmentation(mixup=alphas[0], cutmix=alphas[1], label_smoothing=0)
    mixed, targets = Mixing(section, 6, draw(seed))(images, labels)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ labels.float())
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    whole = (mixed == mixed.round()).all()
    assert alphas[0] > 0 or whole  # cutmix leaves pixels as they are
    assert torch.equal(images[:, 0, 0, 0], labels.float())


def test_shares_are_beta_distributed() -> None:
    section = Augmentation(mixup=0.8, cutmix=0, label_smoothing=0)
    mixing = Mixing(section, 2, draw())
    labels = torch.tensor([0, 1])
    images = torch.zeros(2, 1, 1, 1)
    shares = np.array([float(mixing(images, labels)[1][0, 0]) for _ in range(3000)])
    # Beta(a, a): mean 1/2, variance 1/(4(2a + 1)); four standard errors.
    variance = 1 / (4 * (2 * 0.8 + 1))
    assert abs(shares.mean() - 0.5) < 4 * (variance / 3000) ** 0.5
    # The fourth moment of any share is at most 1/16: the variance's own standard error from above.
    assert abs(shares.var() - variance) < 4 * (1 / 16 / 3000) ** 0.5 / 2


def test_ways_take_turns_and_nothing_is_mixed_without_them() -> None:
    images, labels = torch.rand(4, 3, 8, 8, generator=draw()), torch.arange(4)
    mixing = Mixing(Augmentation(), 4, draw())
    cut = [bool(torch.isin(mixing(images, labels)[0], images).all()) for _ in range(400)]
    # Half of the time, four standard errors.
    assert abs(np.mean(cut) - 0.5) < 4 * 0.5 / 20
    plain = Mixing(Augmentation(mixup=0, cutmix=0, label_smoothing=0), 4, draw())
    same, targets = plain(images, labels)
    assert torch.equal(same, images)
    assert torch.equal(targets, torch.eye(4))


def test_a_box_is_cut_at_the_edges_and_its_share_is_what_is_left() -> None:
    rows, columns, share = box(8, 8, 0.75, (0.5, 0.5))
    assert (rows, columns, share) == (slice(2, 6), slice(2, 6), 0.75)
    rows, columns, share = box(8, 8, 0.75, (0.0, 0.0))
    assert (rows, columns, share) == (slice(0, 2), slice(0, 2), 1 - 4 / 64)
    assert box(8, 8, 1.0, (0.3, 0.9))[2] == 1
