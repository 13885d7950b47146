"""Traces in files: reading, tokenising for a model, and the steps, labels and scores that commands read and write."""
