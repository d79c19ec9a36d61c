"""Probes: labelled questions of our own, asked on a schedule, never counted as user traffic."""
