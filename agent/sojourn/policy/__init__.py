"""Policy as code: task types, their Cedar policies, and what these answer. Rules alone."""
