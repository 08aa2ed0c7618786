"""What is kept: SQL stays in here."""
