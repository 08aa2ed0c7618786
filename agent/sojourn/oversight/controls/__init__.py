"""The control map: claims about the agent, row by row of published frameworks, each with what records say of it."""
