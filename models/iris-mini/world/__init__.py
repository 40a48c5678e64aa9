"""The small illustrated world that iris-mini is trained on."""
