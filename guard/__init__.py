"""The sidecar: data path, checks, release, admin, composition."""
