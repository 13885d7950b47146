"""Labels of essential and redundant steps: judged by language models, or measured by hiding steps."""
