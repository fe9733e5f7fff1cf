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
"""Of one checkpoint on one dataset, made by reducing its store."""

STATISTICS = (
    "correlation",
    "predictors",
    "correlation_by_k",
    "prediction",
    "within",
    "variance",
)
"""Of all that was measured."""

DAMAGE_STATISTICS = ("damage_statistics", "damage_pairs")
"""Of what was measured where blocks were changed."""

INTERVENTION_STATISTICS = ("intervention", "arms")
"""Of populations that are the arms of an experiment."""
