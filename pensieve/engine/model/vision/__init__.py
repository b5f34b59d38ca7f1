"""Pictures: the tower that turns them into embeddings, and the positions of their tokens."""
