"""HTTP and dialects as bytes: no sockets, no clock. One file per dialect."""
