"""Drift by component: what is new in the questions, and which numbers of a component left their own spread."""
