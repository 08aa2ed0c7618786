"""The key process: it alone uses the keys of roots, where they are, and builds what it signs by them."""
