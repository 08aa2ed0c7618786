"""What runs everything else: time, hooks, work in the background, the log."""
