"""What tables of settings are made of, for the agent's own and for plugins'."""
