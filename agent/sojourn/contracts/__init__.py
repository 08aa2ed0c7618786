"""What plugins must keep, as tests that anybody runs over their own. No part of the agent uses it."""
