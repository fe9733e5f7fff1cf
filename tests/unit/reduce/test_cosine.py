"""Cosines between states from their Gram matrix, against the states themselves."""

import numpy as np
import xarray as xr

from blockcoupling.measurement.states import gram
from blockcoupling.reduce.cosine import block_influence, state_cosines


def test_cosines_are_those_of_the_states() -> None:
    states = np.random.default_rng(0).normal(size=(3, 5, 16)).cumsum(axis=1)  # token, state, embed
    states[1, 3] = 2 * states[1, 2]  # a block that only changes the length
    ds = xr.Dataset({"gram": (("prompt", "token", "state", "state_other"), gram(states)[None])})
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    wanted = unit @ unit.swapaxes(1, 2)
    # Both in float64; the Gram matrix adds up a few dozen products.
    np.testing.assert_allclose(state_cosines(ds).values[0], wanted, atol=1e-13)
    influence = block_influence(ds)
    assert influence.dims == ("prompt", "token", "block")
    assert influence["block"].values.tolist() == [1, 2, 3, 4]
    steps = 1 - np.einsum("tse,tse->ts", unit[:, :-1], unit[:, 1:])
    np.testing.assert_allclose(influence.values[0], steps, atol=1e-13)
    assert abs(influence.values[0, 1, 2]) < 1e-13
