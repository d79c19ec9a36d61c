"""How good the safety signals are, and how their models are trained."""
