"""The worker process: build the engine, run the main loop, release memory."""
