"""`/v1/messages`: from a request's bytes to its answer."""
