"""Chance with frames rotated together, against dense rotations written out."""

import numpy as np
import pytest
from example_store import from_jacobians
from scipy.stats import ortho_group

import blockcoupling as bc
from blockcoupling.config.variants import OF_BLOCKS
from blockcoupling.errors import UserError
from blockcoupling.reduce.rotation import chance_by_rotation

D, K, DRAWS = 24, 6, 400
STATES = np.random.default_rng(0).normal(size=(1, 3, D))


def semidefinite() -> np.ndarray:
    """Two blocks with V = U and falling singular values, unrelated: (1, block, d, d)."""
    turns = ortho_group.rvs(D, size=2, random_state=np.random.default_rng(0))
    return np.stack([turn * 0.9 ** np.arange(D) @ turn.T for turn in turns])[None]


def general() -> np.ndarray:
    turns = ortho_group.rvs(D, size=4, random_state=np.random.default_rng(2))
    return np.stack([turns[n] * 0.8 ** np.arange(D) @ turns[n + 2] for n in range(2)])[None]


def by_definition(j: np.ndarray, variant: str) -> np.ndarray:
    """m(1, 2) after whole rotations from SciPy."""
    u, _, vt = np.linalg.svd(j[0, 1])
    s = np.linalg.svd(j[0, 0], compute_uv=False)[:K]
    m = []
    for turn in ortho_group.rvs(D, size=DRAWS, random_state=np.random.default_rng(1)):
        left, right = turn @ u[:, :K], turn @ vt[:K].T
        a = right.T @ j[0, 0] @ left if variant == "swapped" else left.T @ j[0, 0] @ right
        a = abs(a) if variant in ("absolute", "absolute_trace", "swapped") else a
        target = np.diag(np.diag(a)) if variant == "offdiagonal" else np.diag(s)
        scale = s.sum() if variant == "absolute_trace" else np.linalg.norm(s)
        m.append(np.linalg.norm(a - target) / scale)
    return np.array(m)


@pytest.mark.parametrize("variant", OF_BLOCKS)
@pytest.mark.parametrize("blocks", [semidefinite, general])
def test_it_is_that_of_whole_rotations(variant: str, blocks) -> None:
    j = blocks()
    ds = from_jacobians("p", j, STATES, D, vectors=True, swapped=True)
    drawn = chance_by_rotation(ds, K, variant, draws=DRAWS)
    own = drawn.isel(prompt=0, pair=0, block=0, block_other=1)
    m = by_definition(j, variant)
    error = 7 * m.std() / DRAWS**0.5 + 1e-5  # of a difference of two means; vectors in float32
    assert float(own["mean"]) == pytest.approx(m.mean(), abs=error)
    assert float(own["rms"]) == pytest.approx(np.sqrt((m**2).mean()), abs=error)
    assert own["low"] < own["mean"] < own["high"]
    assert np.isnan(drawn["mean"].values[0, 0, [0, 1], [0, 1]]).all()


def test_symmetric_blocks_are_far_from_the_independent_draw() -> None:
    ds = from_jacobians("p", semidefinite(), STATES, D, vectors=True)
    together = chance_by_rotation(ds, K, draws=DRAWS)["rms"].values[0, 0, 0, 1]
    alone = bc.chance(ds, K).values[0, 0, 0]
    found = bc.miscoupling(ds, K).values[0, 0, 0, 1]
    assert alone > 1.02
    assert together < 0.95
    assert abs(found - together) < abs(found - alone)  # two unrelated blocks


def test_what_the_stored_triples_leave_is_noise() -> None:
    """Half of the triples: the rest of a general block is as good as independent."""
    whole, half = (
        from_jacobians("p", general(), STATES, kept, vectors=True) for kept in (D, D // 2)
    )
    m = [chance_by_rotation(ds, K, draws=DRAWS)["rms"].values[0, 0, 0, 1] for ds in (whole, half)]
    assert m[0] == pytest.approx(m[1], rel=0.02)


def test_it_needs_vectors_and_draws() -> None:
    ds = from_jacobians("p", general(), STATES, D, vectors=True)
    with pytest.raises(UserError, match="lacks singular vectors"):
        chance_by_rotation(ds.drop_vars(["U", "V"]), K)
    with pytest.raises(UserError, match="at least 2"):
        chance_by_rotation(ds, K, draws=1)
    one, same = (chance_by_rotation(ds, K, draws=5, seed=3) for _ in range(2))
    assert one.equals(same)
