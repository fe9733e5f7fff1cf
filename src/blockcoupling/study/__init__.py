"""A study as a whole, before it runs: checked, its needs, its plan."""
