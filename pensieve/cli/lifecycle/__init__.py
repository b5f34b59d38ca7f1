"""What `start`, `restart`, `stop`, `status` and `claude` share: launch, report, options."""
