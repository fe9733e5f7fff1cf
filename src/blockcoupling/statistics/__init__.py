"""Measurements compared with scores: points, correlations, predictions, variances, costs."""
