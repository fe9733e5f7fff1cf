"""The command line: one verb a step, each calling one function of the package.

The workflow's rules are these verbs; anything the workflow does can be done by hand with them.
A verb imports what it needs when it runs, so that light steps start in a fraction of a second.
"""

from blockcoupling.cli.app import app, main
from blockcoupling.lab import join

# Each adds its verbs; --help lists them in this order.
# isort: off
from blockcoupling.cli import one_model as one_model
from blockcoupling.cli import demo as demo
from blockcoupling.cli import study as study
from blockcoupling.cli import steps as steps
from blockcoupling.cli import together as together
from blockcoupling.cli import entries as entries
from blockcoupling.cli import analysis as analysis
from blockcoupling.cli import explore as explore
from blockcoupling.cli import publish as publish
# isort: on

join()

__all__ = ["app", "main"]
