"""Clients of the agent, on this machine and on another one."""
