"""Adapters served over one base model: queue, batches, answers as text; the HTTP side is `app`."""
