"""Commands about models: list, show, plan, download, remove, choose."""
