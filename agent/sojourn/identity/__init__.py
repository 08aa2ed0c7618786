"""Which identity a process has, and keeping it fresh: entries, matching, issuing, pushing."""
