"""The recipe of iris-mini, the embedded model: one module a component."""
