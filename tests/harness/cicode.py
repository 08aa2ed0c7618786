"""The scripts of .ci/, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / ".ci"


def load(name: str) -> ModuleType:
    """The script `.ci/NAME.py`, once, with what stands beside it."""
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        sys.path.insert(0, str(FOLDER))
        try:
            found.loader.exec_module(module)
        finally:
            sys.path.remove(str(FOLDER))
    return sys.modules[name]
