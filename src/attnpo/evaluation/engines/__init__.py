"""What samples responses: transformers, or vLLM where it is installed."""
