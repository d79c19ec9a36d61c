"""Measuring and deciding: types, windows, thresholds, verdicts, actions. Knows no proxy."""
