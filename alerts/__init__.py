"""Prometheus rules, promtool tests, runbooks and an Alertmanager configuration, printed from slo.yaml."""
