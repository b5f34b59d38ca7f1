"""Models: the catalog, fetching, folders on this machine, and opening one for the front end."""
