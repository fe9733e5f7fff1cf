"""The command line: one verb a step."""

from blockcoupling.cli.app import app, main

__all__ = ["app", "main"]
