"""What the trained iris-mini can do, measured by a probe that was trained on real pictures."""
