"""The answer cache: repeats are answered without the model, never with an answer of another release or tenant.

key, policy, revocations, envelope   pure: what may be stored, under which name, and what is no longer valid
memory | redis                       stores, both behind `ports.Store`
service                              the facade that data path, checks, admin listener and commands use
"""
