"""Importing the measuring packages loads nothing that only a model's own classes need."""

import json
import pkgutil
import subprocess
import sys

from blockcoupling import jacobian, transformer

HEAVY = ["transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor", "accelerate"]


def test_what_models_need_is_imported_with_them() -> None:
    modules = [
        module.name
        for package in (jacobian, transformer)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    code = f"import json, sys, {', '.join(modules)}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert set(modules) <= loaded
    assert not loaded & set(HEAVY)
