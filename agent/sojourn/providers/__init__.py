"""Outside token endpoints, one file each. Nothing here knows of tasks, stores or doors."""
