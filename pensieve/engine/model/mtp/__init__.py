"""MTP heads: layers of a model that predict the token after the next one."""
