"""What Prometheus is told of the agent itself: its run, its doors, its authority and its store.

Collectors are asked in a thread of their own. Labels have few values, which are the agent's own words: no IDs, users or
paths.
"""
