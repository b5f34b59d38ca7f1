"""What people see: output, progress bars, help layout, shell syntax."""
