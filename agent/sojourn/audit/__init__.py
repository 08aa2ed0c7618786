"""The audit journal: a record of each issue, denial and change of a task."""
