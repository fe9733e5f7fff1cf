"""`python -m blockcoupling` is `blockcoupling`."""

from blockcoupling.cli import main

main()
