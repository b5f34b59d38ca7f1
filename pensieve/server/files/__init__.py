"""`/v1/files`: uploaded text files."""
