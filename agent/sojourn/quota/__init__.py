"""Limits that are counted by owner: rates, shares, and caches of a size."""
