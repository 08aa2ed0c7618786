"""What oversight asks of records: what was granted, against what was used of it. Values: no clock, no I/O."""
