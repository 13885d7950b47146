"""Credit assignment: one outcome advantage per response → one advantage per token. One file per method.

This package imports neither TRL nor the command line; a method is a pure function of tensors.
"""
