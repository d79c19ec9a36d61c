"""Simulated bot traffic in virtual time, and the real guard deciding on it. No wall clock; one seed, one history.

arrivals   how many questions come: day, week, bursts, sessions
behaviour  how a release answers, and how that changes over time
upstream   what befalls every release at once
counting   one step of traffic as counts (fast); `exchanges` the same as single exchanges (exact)
source     counts straight into the windows that the judge reads
service    the loop: traffic -> SloJudge -> decide -> release state -> traffic
record     what the guard did, for tests and tables
"""
