"""What is above this agent: a SPIRE server whose node it is, or an authority that signs its own intermediate."""
