"""A request in, a Generation out."""
