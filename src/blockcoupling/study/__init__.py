"""A whole study: checking it, its needs, plan and status, and verifying its results."""
