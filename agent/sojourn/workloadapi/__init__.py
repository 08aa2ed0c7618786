"""The messages of the SPIFFE Workload API, parsed."""
