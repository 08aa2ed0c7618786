"""The SDK: clients of the agent, TLS by SPIFFE ID, and verification of task tokens."""
