"""Known models, the names that people type, and the models recommended for a machine."""
