"""Where readings come from: memory, exchange log."""
