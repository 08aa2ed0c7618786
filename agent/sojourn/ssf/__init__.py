"""Shared Signals (SSF, CAEP): signed events of outside issuers, and the facts that they tell."""
