"""Performance, side by side with the released algorithm: `make bench` (python -m benchmarks)."""
