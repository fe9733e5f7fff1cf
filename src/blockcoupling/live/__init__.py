"""Coupling measured during a training."""
