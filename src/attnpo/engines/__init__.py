"""Training engines other than TRL, one folder each; only that folder imports the engine's package."""
