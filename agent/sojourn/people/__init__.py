"""People: whose tokens a workload may bring, and what a verified one says of the person that a task is for."""
