"""Revisions of the registry's tables; run by `registry.migrating`, in the transaction that it holds."""
