"""Composition: the only place that knows every adapter. Builds the guard from its settings, starts and stops it.

guard       the `Guard` itself: what it is made of, in which order its parts are built, started and stopped
recorders   whoever is told of an exchange: counters, windows, log, recent, labels, traces
cache       the answer cache and what looks after it, if there is one
checks      the worker process, what it is asked to look for, and the screen before the model
data_path   the listener that bots talk to; a release state becoming the split of the next request
judging     rules and windows (of this process or the fleet), alerts from outside, the judge over them
release     controller, registry, outbox and webhooks, incidents; what they ask of the running guard
admin       the second listener
following   a changed guard.yaml: what may change in a running guard, and how it is swapped as a whole
loops       what runs beside the requests: their ends are noticed, windows are saved, the loop's lag is watched

A new adapter is made in the room of its kind and handed on by `guard`; it imports nothing from here.
"""

from guard.wiring.guard import Guard

__all__ = ["Guard"]
