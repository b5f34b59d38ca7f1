"""Other machines that run the engine: reached by ssh, checked, and what runs there."""
