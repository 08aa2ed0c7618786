"""SPIRE's server APIs, as its own command and others' tools call them."""
