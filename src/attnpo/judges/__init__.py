"""Language models at chat endpoints as judges: for labels of steps, the audit of repairs, and equal answers."""
