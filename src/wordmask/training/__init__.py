"""Training: what the recipes set, and the one loop."""
