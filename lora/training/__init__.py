"""Training of adapters. Decisions (plan, batches, stopping, card) are pure; torch is met in the others.

Needs torch, transformers and peft alone, so that a training machine needs nothing else of this project.
"""
