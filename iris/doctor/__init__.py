"""`iris doctor`: what this machine will run, how fast, and what to change."""
