"""Whether all is as it should be: findings about machine, settings, files, server and clients, each with its fix."""
