"""Which heads look at the steps that matter, and how far they can be trusted."""
