"""Second listener: metrics, health, API."""
