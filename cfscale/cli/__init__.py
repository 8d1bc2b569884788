"""The command line: one module per command; ``console`` is the only module that prints."""
