"""Answer checks; they run in the worker process, never in the proxy."""
