"""Grafana dashboards, printed from the SLO file and the table of metrics: text in, JSON out, no Grafana needed.

model -> service | release | quality | cost -> grafana -> build
"""
