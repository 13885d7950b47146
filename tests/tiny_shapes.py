"""The shape of the random models in the attention tests: small enough that a loop over everything is quick."""

COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
TWO_LAYERS = {**COMMON, "num_hidden_layers": 2, "head_dim": 8}
