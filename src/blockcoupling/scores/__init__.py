"""What a checkpoint scores: held-out text, benchmarks, recorded facts."""
