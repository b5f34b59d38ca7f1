"""The worker process: build the engine, run the main loop, give memory back."""
