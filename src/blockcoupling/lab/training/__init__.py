"""Small models, trained from scratch: of text that every Python installation carries, of images."""

from blockcoupling.lab.training.checkpoints import keep_states, train

__all__ = ["keep_states", "train"]
