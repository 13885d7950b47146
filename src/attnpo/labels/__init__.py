"""Which steps of a trace are essential: judged by language models, or measured by hiding them."""
