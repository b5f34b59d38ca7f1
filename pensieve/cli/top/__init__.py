"""`pensieve top`: watches a server in the terminal."""
