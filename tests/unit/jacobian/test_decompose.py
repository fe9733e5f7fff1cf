"""Both paths through all blocks against dense algebra in float64."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import prompt, small_model
from torch import Tensor

from blockcoupling.errors import MeasurementError
from blockcoupling.jacobian import decompose as sweeps
from blockcoupling.jacobian import dense_svd, first_sweep, spill
from blockcoupling.jacobian.block_operators import same_token
from blockcoupling.jacobian.decompose import Decomposition, decompose
from blockcoupling.jacobian.degenerate import AtPrompt
from blockcoupling.jacobian.operator import DenseOperator, Operator
from blockcoupling.jacobian.svd import NotConverged
from blockcoupling.jacobian.work import NORM_PROBES
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode
from blockcoupling.transformer.running import differentiable

PROMPTS, BLOCKS, D, K = 2, 4, 200, 5
TOLERANCE = 1e-7
GAP = 0.07  # from a singular value to the next, over s_1, at the least


@pytest.fixture(scope="module")
def jacobians() -> Tensor:
    """Jacobians whose blocks share a part: (block, prompt, d, d).

    Singular values fall by 0.7 each to a slope that holds half of ‖J‖_F².
    """
    generator = torch.Generator().manual_seed(0)

    def orthogonal() -> Tensor:
        own = torch.randn(BLOCKS, PROMPTS, D, D, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(own + own[:1])[0]

    index = torch.arange(D, dtype=torch.float64)
    spectrum = torch.maximum(2 * 0.7**index, 0.25 - 0.1 * index / D)
    return orthogonal() * spectrum @ orthogonal().mT


def operators(jacobians: Tensor) -> Callable[[int], Operator]:
    return lambda block: DenseOperator(jacobians[block].clone())


def reference(jacobians: Tensor, k: int = K) -> dict[str, np.ndarray]:
    """S, U, V and both products of every pair of blocks, by NumPy."""
    j = jacobians.transpose(0, 1).double().numpy()
    u, s, vt = np.linalg.svd(j)
    u, v = u[..., :k], vt.swapaxes(-1, -2)[..., :k]
    largest = np.take_along_axis(u, np.abs(u).argmax(axis=-2, keepdims=True), axis=-2)
    u, v = u * np.sign(largest), v * np.sign(largest)
    return {
        "S": s[..., :k],
        "S_full": s,
        "U": u,
        "V": v,
        "A": np.einsum("pjak,piab,pjbl->pijkl", u, j, v, optimize=True),
        "A_swapped": np.einsum("pjak,piab,pjbl->pijkl", v, j, u, optimize=True),
        "norm": np.linalg.norm(j, axis=(-2, -1)),
    }


def assert_close(found: Tensor | None, wanted: np.ndarray, tolerance: float) -> None:
    assert found is not None
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=tolerance * abs(wanted).max())


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_either_path_gives_the_references_numbers(jacobians: Tensor, method: str) -> None:
    found = decompose(
        operators(jacobians), BLOCKS, K, method=method, tolerance=TOLERANCE, swapped=True
    )
    wanted = reference(jacobians)
    # Singular values are off by the square of the residual, vectors by the residual over the gap
    # to the next singular value, and A as its vectors are.
    assert_close(found.S, wanted["S"], 1e-12)
    for name in ("U", "V", "A", "A_swapped"):
        assert_close(getattr(found, name), wanted[name], TOLERANCE / GAP)
    assert found.methods == [method] * BLOCKS
    assert found.A.shape == (PROMPTS, BLOCKS, BLOCKS, K, K)
    assert found.S_full is None
    assert float(found.residual.max()) <= TOLERANCE


def test_the_diagonal_of_products_is_the_singular_values(jacobians: Tensor) -> None:
    found = decompose(operators(jacobians), BLOCKS, K, method="krylov", tolerance=TOLERANCE)
    own = found.A.diagonal(dim1=1, dim2=2).movedim(-1, 1)
    # A_ii = U_iᵀ J_i V_i, to the residual at which the iteration stopped.
    assert_close(own, torch.diag_embed(found.S).numpy(), TOLERANCE)


def test_norm_is_exact_on_the_dense_path(jacobians: Tensor) -> None:
    found = decompose(operators(jacobians), BLOCKS, K, method="dense")
    assert_close(found.norm, reference(jacobians)["norm"], 1e-14)  # a sum of d² squares
    assert not found.norm_error.any()


def test_norm_is_within_its_error_on_the_matrix_free_path(jacobians: Tensor) -> None:
    found = decompose(operators(jacobians), BLOCKS, K, method="krylov", tolerance=TOLERANCE)
    deviation = (found.norm - torch.from_numpy(reference(jacobians)["norm"])).abs()
    # Five standard errors: once in a million for the 8 norms here, and the seed is fixed.
    assert (deviation <= 5 * found.norm_error).all()
    # And the error says something: the remainder holds half of ‖J‖², its mean has 16 probes.
    assert (found.norm_error > 0).all()
    assert (found.norm_error < 0.1 * found.norm).all()


def test_norm_error_is_the_spread_of_the_norm(jacobians: Tensor) -> None:
    """Over many seeds, the standard error is the standard deviation."""
    runs = [
        decompose(operators(jacobians[:2]), 2, K, method="krylov", seed=seed) for seed in range(40)
    ]
    norms = torch.stack([run.norm for run in runs])
    errors = torch.stack([run.norm_error for run in runs])
    # A standard deviation from 40 runs is good to 11 %; 40 % is nearly four times that.
    ratio = errors.square().mean(dim=0).sqrt() / norms.std(dim=0)
    assert ((ratio > 0.6) & (ratio < 1.4)).all()
    wanted = torch.from_numpy(reference(jacobians)["norm"][:, :2])
    deviation = norms.mean(dim=0) - wanted
    assert (deviation.abs() <= 5 * norms.std(dim=0) / math.sqrt(40)).all()


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_full_spectrum_where_asked_for(jacobians: Tensor, method: str) -> None:
    found = decompose(operators(jacobians), BLOCKS, K, method=method, full=True)
    assert found.methods == ["dense"] * BLOCKS  # it needs the matrix
    assert_close(found.S_full, reference(jacobians)["S_full"], 1e-12)  # LAPACK's rounding


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_overlaps_are_those_of_the_references_vectors(jacobians: Tensor, method: str) -> None:
    settings = {"method": method, "tolerance": TOLERANCE}
    found = decompose(operators(jacobians), BLOCKS, K, overlaps=True, **settings)
    wanted = reference(jacobians)
    assert found.overlaps is not None
    for name, left, right in (
        ("output_overlap", "U", "U"),
        ("input_overlap", "V", "V"),
        ("composition", "V", "U"),
    ):
        exact = np.einsum("piak,pjal->pijkl", wanted[left], wanted[right])
        assert_close(found.overlaps[name], exact, TOLERANCE / GAP)  # as the vectors are
    without = decompose(operators(jacobians), BLOCKS, K, **settings)
    assert without.overlaps is None
    assert torch.equal(without.A, found.A)  # they change nothing else


def test_swapped_only_where_asked_for(jacobians: Tensor) -> None:
    assert decompose(operators(jacobians), BLOCKS, K).A_swapped is None


def test_a_method_for_every_block(jacobians: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    # At this tolerance an iteration costs more than so small a matrix, and would be given up.
    monkeypatch.setattr(first_sweep, "affordable_products", lambda _: None)
    chosen = ["dense", "krylov", "krylov", "dense"]
    found = decompose(operators(jacobians), BLOCKS, K, method=chosen, tolerance=TOLERANCE)
    assert found.methods == chosen
    assert_close(found.A, reference(jacobians)["A"], TOLERANCE / GAP)
    exact = [name == "dense" for name in chosen]
    assert [not error.any() for error in found.norm_error.T] == exact


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_float32_stays_within_the_tolerance(jacobians: Tensor, method: str) -> None:
    found = decompose(operators(jacobians.float()), BLOCKS, K, method=method)
    assert_close(found.S, reference(jacobians)["S"], 1e-5)  # a hundred roundings of 1e-7
    assert float(found.residual.max()) <= 1e-4  # the default


def test_a_prompts_numbers_do_not_depend_on_its_place_in_the_batch(jacobians: Tensor) -> None:
    one = decompose(operators(jacobians), BLOCKS, K, method="krylov", tolerance=TOLERANCE)
    two = decompose(operators(jacobians.flip(1)), BLOCKS, K, method="krylov", tolerance=TOLERANCE)
    for name in ("S", "A", "norm", "norm_error"):
        # Only the order of sums differs.
        torch.testing.assert_close(
            getattr(one, name), getattr(two, name).flip(0), rtol=1e-9, atol=1e-9
        )


def spoilt(spoil: Callable[[Tensor], Tensor], jacobians: Tensor) -> Tensor:
    jacobians = jacobians.clone()
    jacobians[2, 1] = spoil(jacobians[2, 1])
    return jacobians


@pytest.mark.parametrize("method", ["dense", "krylov", "auto"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (torch.zeros_like, r"exactly 0 .*kernel without a gradient"),
        (lambda j: -torch.eye(len(j), dtype=j.dtype), "exactly −I .*does not depend on its input"),
        (lambda j: j.fill_(torch.nan), "not finite"),
        (lambda j: j.index_fill(0, torch.tensor([7]), torch.inf), "not finite"),
    ],
    ids=["zero", "minus identity", "nan", "inf"],
)
def test_trivial_jacobians_are_refused_by_block_and_prompt(
    jacobians: Tensor, spoil: Callable, message: str, method: str
) -> None:
    with pytest.raises(AtPrompt, match=f"block 3: the residual Jacobian is {message}") as caught:
        decompose(operators(spoilt(spoil, jacobians)), BLOCKS, K, method=method)
    assert caught.value.prompt == 1
    assert isinstance(caught.value, MeasurementError)


def test_nearly_trivial_jacobians_are_measured(jacobians: Tensor) -> None:
    """Only exact zeros and exact identities are faults: a block may do little."""
    little = spoilt(lambda j: 1e-12 * j, jacobians)
    assert_close(
        decompose(operators(little), BLOCKS, K).S[1, 2], reference(little)["S"][1, 2], 1e-6
    )
    almost = spoilt(lambda j: 1e-6 * j - torch.eye(D, dtype=j.dtype), jacobians)
    assert_close(decompose(operators(almost), BLOCKS, K).S, reference(almost)["S"], 1e-6)


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_residual_is_computed_again(
    jacobians: Tensor, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors that the iteration takes for good, and that are not, are noticed."""

    def spoiling(solve: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            found = solve(*args, **kwargs)
            found.V[0, :, 1] = found.V[0, :, 1] + 3e-3 * found.V[0, :, 2]
            return found

        return call

    monkeypatch.setattr(dense_svd, "full_svd", spoiling(dense_svd.full_svd))
    monkeypatch.setattr(first_sweep, "truncated_svd", spoiling(first_sweep.truncated_svd))
    message = r"block 1: .*residual .*e-03 s_1, above the tolerance of 1"
    with pytest.raises(AtPrompt, match=message) as caught:
        decompose(operators(jacobians), BLOCKS, K, method=method)
    assert caught.value.prompt == 0


def test_residual_is_that_of_the_vectors(jacobians: Tensor) -> None:
    found = decompose(operators(jacobians), BLOCKS, K, method="krylov", tolerance=1e-3)
    pushed = jacobians.transpose(0, 1) @ found.V
    error = (pushed - found.U * found.S[:, :, None, :]).norm(dim=2).amax(dim=2) / found.S[..., 0]
    assert_close(found.residual, error.numpy(), 1e-6)  # rounding of 1e-16 in a residual of 1e-4
    assert float(found.residual.max()) > 1e-6  # not exact vectors, so that this says something


def test_a_requested_iteration_that_does_not_converge_is_an_error(
    jacobians: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncated = first_sweep.truncated_svd

    def short(*args: object, **kwargs: object) -> object:
        return truncated(*args, **(kwargs | {"max_products": 8}))

    monkeypatch.setattr(first_sweep, "truncated_svd", short)
    with pytest.raises(MeasurementError, match="block 1: the SVD did not converge"):
        decompose(operators(jacobians), BLOCKS, K, method="krylov")
    # Where it was not the user's choice, the whole matrix is taken instead.
    found = decompose(operators(jacobians), BLOCKS, K, method=["krylov"] * BLOCKS)
    assert found.methods == ["dense"] * BLOCKS
    assert_close(found.A, reference(jacobians)["A"], 1e-10)  # LAPACK's vectors


def test_products_of_both_sweeps_are_counted(jacobians: Tensor) -> None:
    dense = decompose(operators(jacobians), BLOCKS, K, method="dense")
    free = decompose(operators(jacobians), BLOCKS, K, method="krylov")
    assert len(dense.products) == len(free.products) == BLOCKS
    second_sweep = BLOCKS * K + NORM_PROBES
    assert all(count >= 2 * K + second_sweep for count in free.products)
    assert dense.products == [0] * BLOCKS  # these operators have the matrix already


@pytest.mark.parametrize("gives_up", [False, True])
def test_what_choosing_took_is_not_counted(
    jacobians: Tensor, gives_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is run again follows the choice made before, and counts the same."""

    def fail(operator: Operator, *args: object, **kwargs: object) -> None:
        operator.adjoint(torch.ones(PROMPTS, D, 3, dtype=torch.float64))
        raise NotConverged(1.0, TOLERANCE, 3)

    monkeypatch.setattr(sweeps, "choose_method", lambda *args: "krylov")
    if gives_up:
        monkeypatch.setattr(first_sweep, "truncated_svd", fail)
    first = decompose(operators(jacobians), BLOCKS, 2)
    again = decompose(operators(jacobians), BLOCKS, 2, method=first.methods)
    assert first.methods[0] == ("dense" if gives_up else "krylov")
    assert first.products == again.products
    assert torch.equal(first.A, again.A)


def test_progress_counts_blocks_in_both_sweeps(jacobians: Tensor) -> None:
    steps: list[None] = []
    decompose(operators(jacobians), BLOCKS, K, progress=lambda: steps.append(None))
    assert len(steps) == 2 * BLOCKS


def open_files() -> set[str] | None:
    """Numbers of this process's open files, where the system tells them."""
    listed = Path("/proc/self/fd")
    return {path.name for path in listed.iterdir()} if listed.exists() else None


@pytest.mark.parametrize("fails", [False, True])
def test_jacobians_between_the_sweeps_leave_nothing_behind(
    jacobians: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(spill.tempfile, "tempdir", str(tmp_path))
    before = open_files()
    if fails:
        with pytest.raises(MeasurementError):
            decompose(operators(spoilt(torch.zeros_like, jacobians)), BLOCKS, K, method="dense")
    else:
        decompose(operators(jacobians), BLOCKS, K, method="dense")
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before


def test_the_first_blocks_products_decide_for_the_others(
    jacobians: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def choose(operator: Operator, blocks: int, k: int, per_triple: float = 27.0) -> str:
        seen.append(per_triple)
        return "krylov"

    monkeypatch.setattr(sweeps, "choose_method", choose)
    found = decompose(operators(jacobians), BLOCKS, K)
    first_sweep_alone = found.products[0] - BLOCKS * K - NORM_PROBES
    assert seen == [27.0, first_sweep_alone / K]


def test_auto_gives_the_same_numbers_whatever_it_picks(
    jacobians: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Decomposition] = {}
    for chosen in ("krylov", "dense"):
        monkeypatch.setattr(sweeps, "choose_method", lambda *args, chosen=chosen: chosen)
        run = decompose(operators(jacobians), BLOCKS, 2, tolerance=TOLERANCE)
        found[run.methods[0]] = run
    assert set(found) == {"dense", "krylov"}
    assert_close(found["krylov"].A, found["dense"].A.numpy(), TOLERANCE / GAP)


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_blocks_in_parallel_change_nothing(jacobians: Tensor, method: str) -> None:
    one, three = (
        decompose(operators(jacobians), BLOCKS, K, method=method, swapped=True, workers=workers)
        for workers in (1, 3)
    )
    for name in ("S", "U", "V", "A", "A_swapped", "norm", "norm_error", "residual"):
        # Another number of threads in a product may round its sums in another order.
        assert_close(getattr(three, name), getattr(one, name).numpy(), 1e-13)
    assert (one.products, one.methods) == (three.products, three.methods)


def test_a_model_in_several_threads() -> None:
    """Blocks of one model, recorded in parallel: they share what says how to attend."""
    model, ids = small_model("llama"), prompt(9)
    blocks = find_blocks(model, ids)
    with differentiable(model):
        calls = record_decode(model, blocks, ids)
        one, four = (
            decompose(
                lambda block: same_token([calls[block]]),
                len(blocks),
                4,
                method="krylov",
                workers=workers,
            )
            for workers in (1, 4)
        )
    assert four.attention == ["one-token"] * len(blocks)
    assert_close(four.A, one.A.numpy(), 1e-12)


def test_a_fault_in_one_of_several_threads_is_told(jacobians: Tensor) -> None:
    spoilt_block = jacobians.clone()
    spoilt_block[2] = 0
    with pytest.raises(AtPrompt, match="block 3: the residual Jacobian is exactly 0"):
        decompose(operators(spoilt_block), BLOCKS, K, method="krylov", workers=3)
