"""Which models there are, where they come from and how one is opened for the front end."""
