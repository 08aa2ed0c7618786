"""sojourn.v1.Admin, for operators: what SPIRE's server API lacks."""
