"""Files: written whole, read only where nobody else could have written, and followed."""
