"""Canary releases: state, journal, controller, outbox."""
