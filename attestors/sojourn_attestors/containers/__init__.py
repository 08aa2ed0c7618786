"""Which container a process is in, as far as the kernel tells."""
