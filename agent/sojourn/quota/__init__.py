"""Limits that are counted by owner: rates, places at once, fair queues, shares, and caches of a size."""
