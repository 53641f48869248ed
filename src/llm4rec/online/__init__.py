"""Learning from feedback while serving: equations (26) to (33)."""
