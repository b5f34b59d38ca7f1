"""The front end's side of the engine: start the worker, supervise it, submit and cancel."""
