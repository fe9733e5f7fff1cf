"""Functions of a study and of a job's wildcards, some of them named in the table of steps."""

import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from blockcoupling.config.study import Study


def apply(function: Callable[..., Any], study: Study, wildcards: Mapping[str, str]) -> Any:
    """Call a function with a study and those of a job's wildcards that it has parameters for."""
    return function(study, **taken(function, wildcards))


def taken(function: Callable[..., Any], wildcards: Mapping[str, str]) -> dict[str, str]:
    """Those of a job's wildcards that a function has parameters for."""
    return {key: each for key, each in wildcards.items() if key in _parameters(function)}


@functools.cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(signature(function).parameters)


def call(where: str, study: Study, wildcards: Mapping[str, str]) -> Any:
    """The same for `module:function`, which is imported when it is called."""
    module, name = where.split(":")
    return apply(getattr(import_module(module), name), study, wildcards)
