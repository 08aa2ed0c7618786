"""Starting a command that gets nothing of the agent."""
