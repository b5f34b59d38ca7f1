"""Shared by `start`, `restart`, `stop`, `status` and `claude`: launch, report, options."""
