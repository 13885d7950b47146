"""How far the key-focus heads can be trusted: one file per question, each with a table and a figure as its answer."""
