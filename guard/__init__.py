"""The sidecar: data path, checks, release, admin, composition."""

from guard.compiled import prefer_changed_sources as _prefer_changed_sources

_prefer_changed_sources()
