"""What is told by many exchanges rather than one: key intents, questions asked again, drift by component.

Runs in the check worker, after the checks of an exchange; keeps vectors and numbers, never words of users.
"""
