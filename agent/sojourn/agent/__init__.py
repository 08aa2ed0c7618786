"""The agent as a whole: built from the configuration, run, and drained."""
