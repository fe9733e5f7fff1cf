"""A study as a whole: checked, its needs, its plan; how it stands; what it left, verified."""
