"""Values of the Messages API: request, answer and the events of a streamed answer."""
