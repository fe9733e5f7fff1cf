"""Small language models, trained from scratch on text that every Python installation carries."""

from blockcoupling.train.checkpoints import keep_states, train

__all__ = ["keep_states", "train"]
