"""Evaluation: how good predictions are on labelled pictures."""
