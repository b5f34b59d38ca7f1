"""Keys of a team and the server's certificate: files, checks, and what clients trust."""
