"""Known models, names that people type, and which model suits a machine."""
