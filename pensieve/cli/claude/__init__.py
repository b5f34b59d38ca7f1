"""`pensieve claude`: run Claude Code against the local model."""
