"""Exports of the journal, and what checks them: without an agent, a network or a database."""
