"""The tables that a study makes, by name: the rules of the workflow have them from here."""

TABLES = (
    "coupling",
    "overlap",
    "locality",
    "trajectory",
    "whole_prompt",
    "spectra",
    "singular_values",
    "inverse_depth_fit",
)
"""Tables of one checkpoint on one dataset, made by reducing its store."""

STATISTICS = (
    "correlation",
    "predictors",
    "correlation_by_k",
    "prediction",
    "within",
    "variance",
)
"""Statistics of all measurements."""

DAMAGE_STATISTICS = ("damage_statistics", "damage_pairs")
"""Statistics of block ablation."""

INTERVENTION_STATISTICS = ("intervention", "arms")
"""Statistics of populations that are the arms of an experiment."""
