"""Language models asked over chat endpoints: for labels of steps, and for the audit of repairs."""
