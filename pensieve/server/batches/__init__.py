"""`/v1/messages/batches`: accept, run and store message batches."""
