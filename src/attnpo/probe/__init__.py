"""Which heads look at the steps that matter, and what chosen heads say about traces on disk."""
