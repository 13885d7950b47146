"""Training engines beside TRL: one folder each, with everything that names the engine's own package."""
