"""Training on TRL: the only place in the package that imports it."""
