"""The example plugins of docs/examples, installed and tried as their authors would."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.agent import clean_environment


def install(example: Path, target: Path) -> Path:
    """Install an example into the folder `target`, as pip does, and return that."""
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(example)],
        check=True,
        timeout=100,
        env=clean_environment(),
    )
    return target


def run_own_tests(example: Path, name: str, installed: Path) -> None:
    """Run the tests that come with an example, where it is `installed`; they must pass."""
    alone = ["-c", os.devnull, f"--rootdir={example}", f"--confcutdir={example}"]  # it looks at nothing above
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", *alone]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(example / name)],
        env={**clean_environment(), "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert 0 == done.returncode, done.stdout[-3000:]


def loaded(example: Path, name: str) -> ModuleType:
    """A module of an example, which is not installed here."""
    spec = importlib.util.spec_from_file_location(name, example / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(example)
        spec.loader.exec_module(module)
    return module
