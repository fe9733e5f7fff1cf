"""One Slurm for all tests here, where the environment asks for it."""

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster, NoCluster, two_nodes


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if os.environ.get("BLOCKCOUPLING_SLURM") != "1":
        pytest.skip("BLOCKCOUPLING_SLURM=1 allows a Slurm to be started on this machine")
    try:
        with two_nodes() as running:
            yield running
    except NoCluster as reason:
        pytest.fail(f"no Slurm can be started here: {reason}")
