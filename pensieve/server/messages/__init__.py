"""`/v1/messages`: from the bytes of a request to its answer."""
