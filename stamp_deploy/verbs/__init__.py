"""The verbs of the command line; nothing but `cli` imports this package."""
