"""Witnesses of signed logs (C2SP tlog-witness): what one decides and keeps, and how an agent's log is cosigned."""
