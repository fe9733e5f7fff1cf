"""Measurements held against scores: points, correlations, variances, costs."""
