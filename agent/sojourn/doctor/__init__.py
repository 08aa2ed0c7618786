"""What an operator asks when something is wrong: looks at machine, files and agent, and what to do about each."""
