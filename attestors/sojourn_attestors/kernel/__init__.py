"""What this machine's kernel says of processes, files, mounts and cgroups."""
