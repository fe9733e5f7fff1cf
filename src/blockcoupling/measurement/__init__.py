"""Measuring a model at prompts: in memory, as a resumable job, token by token."""
