"""Where measurements go: Prometheus text, exchange log. May neither slow nor fail an answer."""
