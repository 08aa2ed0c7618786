"""Tasks: what may be done, by whom, for how long, and the tokens that say so."""
