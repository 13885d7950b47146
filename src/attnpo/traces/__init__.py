"""Traces of a file as tokens of a model: the steps, labels and scores that the commands read and write."""
