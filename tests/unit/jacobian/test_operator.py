"""Operators without a model: matrices, and several operators as one batch."""

import torch

from blockcoupling.jacobian.operator import DenseOperator, StackedOperator


def test_dense_operator_is_its_matrix() -> None:
    matrix = torch.randn(2, 5, 5, dtype=torch.float64)
    vectors = torch.randn(2, 5, 3, dtype=torch.float64)
    operator = DenseOperator(matrix)
    assert torch.equal(operator.matmat(vectors), matrix @ vectors)
    assert torch.equal(operator.adjoint(vectors), matrix.mT @ vectors)
    assert operator.dense() is matrix


def test_stacked_operators_are_theirs_in_order() -> None:
    matrices = torch.randn(3, 5, 5, dtype=torch.float64)
    vectors = torch.randn(3, 5, 2, dtype=torch.float64)
    operator = StackedOperator([DenseOperator(matrices[:1]), DenseOperator(matrices[1:])])
    assert (operator.prompts, operator.dimension) == (3, 5)
    assert torch.equal(operator.matmat(vectors), matrices @ vectors)
    assert torch.equal(operator.adjoint(vectors), matrices.mT @ vectors)
    assert torch.equal(operator.dense(), matrices)
