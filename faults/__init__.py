"""Faults that machines and clusters have, each provoked for real, the results held bit for bit
against an undisturbed run's: `make faults` (faults/__main__.py)."""
