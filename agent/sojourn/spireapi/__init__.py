"""SPIRE's messages and ours: what the API that serves SPIRE's commands, and the node of a SPIRE server, both need."""
