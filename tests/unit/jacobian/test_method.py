"""Which method is chosen, and that nothing but counts decides."""

import ast
import threading
from pathlib import Path

import pytest
import torch
from architectures import prompt, small_model
from torch import Tensor

import blockcoupling
from blockcoupling.jacobian import method
from blockcoupling.jacobian.block_operators import SameToken
from blockcoupling.jacobian.decompose import Decomposition, decompose
from blockcoupling.jacobian.method import affordable_products, choose_method
from blockcoupling.jacobian.operator import Operator
from blockcoupling.transformer.blocks import find_blocks
from blockcoupling.transformer.recording import record_decode
from blockcoupling.transformer.running import differentiable


class Counted(Operator):
    """An operator of a given size whose products must not be needed to choose."""

    dense_products = 0.0

    def __init__(
        self, dimension: int, dense_products: float, prompts: int = 1, device: str = "cpu"
    ) -> None:
        self.prompts, self.dimension, self.dense_products = prompts, dimension, dense_products
        self.dtype, self.device = torch.float32, torch.device(device)

    def _times(self, vectors: Tensor, transposed: bool) -> Tensor:
        raise AssertionError("not needed to choose")

    def _matrix(self) -> Tensor:
        raise AssertionError("not needed to choose")


@pytest.mark.parametrize(
    ("dimension", "products", "blocks", "k", "prompts", "chosen"),
    [
        (128, 128, 6, 1, 1, "dense"),  # small: a matrix costs less than the first steps
        # Whichever took fewer seconds in docs/benchmarks.md:
        (768, 299, 12, 10, 1, "dense"),
        (768, 299, 12, 50, 1, "dense"),
        (768, 299, 12, 10, 16, "dense"),
        (2048, 926, 22, 10, 1, "dense"),
        (2048, 926, 22, 50, 1, "dense"),
        (2048, 926, 22, 10, 4, "krylov"),
        (2048, 926, 22, 10, 16, "krylov"),
        (4096, 1850, 80, 50, 1, "dense"),  # the second sweep alone takes 4016 products
    ],
)
def test_the_method_that_needs_less_work_is_chosen(
    dimension: int, products: float, blocks: int, k: int, prompts: int, chosen: str
) -> None:
    assert choose_method(Counted(dimension, products, prompts), blocks, k) == chosen


def test_an_accelerator_takes_dense_up_to_a_width() -> None:
    """Launching kernels for a few vectors costs more than a matrix, until products are large."""
    eight, seventy = (Counted(d, 0.45 * d, 16, "cuda") for d in (4096, 8192))
    assert choose_method(eight, 32, 10) == "dense"
    assert choose_method(seventy, 80, 10) == "krylov"


def test_what_the_first_block_took_decides_for_the_others() -> None:
    wide = Counted(2048, 926, 4)
    assert choose_method(wide, 22, 10, per_triple=10) == "krylov"
    assert choose_method(wide, 22, 10, per_triple=100) == "dense"


def test_an_iteration_may_cost_what_a_matrix_does() -> None:
    """At this number of products per triple, the choice changes."""
    operator = Counted(2048, 926, 4)
    most = affordable_products(operator)
    assert choose_method(operator, 0, 1, per_triple=0.9 * most) == "krylov"
    assert choose_method(operator, 0, 1, per_triple=1.1 * most) == "dense"


def test_the_choice_and_its_numbers_are_the_same_under_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prompt is decomposed by itself, and while another thread keeps the processor busy."""
    monkeypatch.setattr(method, "SMALL_DIMENSION", 2)  # so that costs decide
    model, ids = small_model("llama"), prompt(9)
    with differentiable(model):
        calls = [record_decode(model, find_blocks(model, ids), ids) for _ in range(5)]

    def run() -> Decomposition:
        operators = SameToken(lambda block: [each[block] for each in calls])
        return decompose(operators, len(calls[0]), 2)

    idle = run()
    stop = threading.Event()

    def busy() -> None:
        matrix = torch.ones(300, 300)
        while not stop.is_set():
            matrix @ matrix

    load = threading.Thread(target=busy)
    load.start()
    try:
        loaded = run()
    finally:
        stop.set()
        load.join()
    assert loaded.methods == idle.methods
    assert loaded.products == idle.products
    assert all(torch.equal(getattr(loaded, name), getattr(idle, name)) for name in "SUVA")


PACKAGE = Path(blockcoupling.__file__).parent
# What a clock or the state of a machine is read with.
CLOCKS = {"time", "timeit", "datetime", "sched"}
LOADS = {"psutil", "resource", "getloadavg", "get_memory_info", "mem_get_info", "virtual_memory"}
# Prints an estimate for the user; nothing is decided by it.
REPORTS = {"token_cost.py"}


@pytest.mark.parametrize("folder", ["jacobian", "measurement", "transformer"])
def test_no_module_reads_a_clock(folder: str) -> None:
    """A choice by a clock would give other bits on another day."""
    forbidden = CLOCKS if folder == "measurement" else CLOCKS | LOADS
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.name in REPORTS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0], *(a.name for a in node.names)}
            elif isinstance(node, ast.Attribute):
                names = {node.attr} & LOADS
            else:
                continue
            assert not names & forbidden, f"{path.name}, line {node.lineno}: {names & forbidden}"
