"""Lists of tables agree with what the commands say that they make."""

import subprocess
import sys

from blockcoupling.catalog import KINDS
from blockcoupling.config.artifacts import STATISTICS, TABLES


def made_by(command):
    return {name for name, kind in KINDS.items() if kind.made_by == f"blockcoupling {command}"}


def test_every_table_is_a_kind_of_its_command():
    assert made_by("reduce") == {*TABLES, "miscoupling"}
    assert made_by("correlate") == set(STATISTICS)


def test_what_the_rules_import_is_light():
    code = (
        "import sys, blockcoupling.config.artifacts, blockcoupling.config.flags,"
        "blockcoupling.study.check, blockcoupling.study.needs, blockcoupling.figures;"
        "print(sorted({'torch', 'pandas', 'xarray', 'dask', 'intake'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
