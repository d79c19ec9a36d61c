"""Knowledge base, retrieval and answer path. Knows nothing of guard and releases."""
