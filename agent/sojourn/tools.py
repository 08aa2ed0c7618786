"""Tools of an agent that do what their task allows, and nothing else."""

from sojourn.errors.oauth import ToolRefused
from sojourn.sdk.guard.tools import guarded

__all__ = [
    "ToolRefused",
    "guarded",
]
