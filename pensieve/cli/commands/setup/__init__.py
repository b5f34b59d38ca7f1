"""Commands about this installation: settings, environment, cache, removal."""
