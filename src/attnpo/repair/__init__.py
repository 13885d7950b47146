"""Repairs of wrong responses: how they are asked for, compared with the original, audited, chosen and cut to size.

Texts and token ids only: neither torch nor a model is needed here.
"""
