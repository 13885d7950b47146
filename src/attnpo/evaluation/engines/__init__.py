"""Engines, which sample responses: transformers, and vLLM if it is installed."""
