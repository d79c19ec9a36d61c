"""Incidents and release conditions of the practice in virtual time, each with and without the fault.

playing      what a scenario is, and playing it for one seed
incidents    the five incidents
conditions   the release conditions, and what must not be mistaken for a fault
__main__     python -m tests.scenarios --seeds 200: a table (`make scenarios SEEDS=200`)
"""
