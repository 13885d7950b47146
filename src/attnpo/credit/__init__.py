"""Credit assignment: from one outcome advantage per response to one advantage per token. One file per method.

This package imports neither TRL nor the command line; a method is a pure function on tensors.
"""
