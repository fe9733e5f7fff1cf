import numpy as np
import torch

from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.jacobian.overlaps import overlaps


def test_each_overlap_is_the_product_of_its_vectors() -> None:
    torch.manual_seed(0)
    U, V = torch.randn(2, 2, 3, 7, 4, dtype=torch.float64)
    found = overlaps(U, V)
    assert list(found) == list(OVERLAPS)
    u, v = U.numpy(), V.numpy()
    for name, left, right in (
        ("output_overlap", u, u),
        ("input_overlap", v, v),
        ("composition", v, u),
    ):
        assert found[name].shape == (2, 3, 3, 4, 4)
        for p, i, j in np.ndindex(2, 3, 3):
            # Sums of seven products in float64.
            np.testing.assert_allclose(found[name][p, i, j], left[p, i].T @ right[p, j], atol=1e-13)


def test_the_bits_of_a_prompt_do_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    U, V = torch.randn(2, 5, 3, 17, 4)
    together, alone = overlaps(U, V), overlaps(U[2:3], V[2:3])
    for name in OVERLAPS:
        assert torch.equal(together[name][2:3], alone[name])
