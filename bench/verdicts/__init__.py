"""How right the verdicts are: figures with seeds, by simulation."""
