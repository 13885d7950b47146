"""Rollouts of the small models several times faster, for experiments of hundreds of runs on a CPU.

Sampling 16 responses with a model of 1.4 million parameters is mostly overhead: of 20 ms a token less than 4 are
arithmetic. On import (`attnpo train --credit_module law_rollouts`), this module replaces `generate` of transformers'
Llama by a loop that uses only the weights of the model: one prefill by the model itself, then per token a dozen tensor
operations a layer, on buffers that are not copied; responses that have ended leave the batch. It draws the same random
numbers as `generate`, so it samples the same tokens up to the rounding of sums in another order
(tests/unit/test_law_rollouts.py). transformers handles everything except plain sampling.

    python benchmarks/law_rollouts.py --model DIR      # tokens per second, also of transformers, and differing tokens
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaForCausalLM

STOCK = LlamaForCausalLM.generate
# Options of sampling and what they are where they change nothing.
NEUTRAL = {
    "temperature": (None, 1.0),
    "top_k": (None, 0),
    "top_p": (None, 1.0),
    "min_p": (None,),
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1.0),
    "num_return_sequences": (None, 1),
    "cache_implementation": (None,),
    "min_new_tokens": (None,),
    "min_length": (None, 0),
}
ROOM = 256  # positions by which the buffers of keys and values grow
LEAVE = 0.8  # rows leave once no more than this share of those in the batch goes on


class Decoder:
    """Decodes one token at a time, for the rows that have not ended."""

    def __init__(self, model: LlamaForCausalLM, mask: Int[Tensor, "B P"]):
        config = model.config
        self.config, self.model = config, model.model
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.head = model.lm_head
        self.layers = [(layer, *_fused(layer)) for layer in self.model.layers]
        self.filled = mask.shape[1]
        self.seen = mask.bool()
        self.positions = mask.sum(dim=1)  # of the next token of every row
        self.buffers: list[list[Tensor]] = []

    def prefill(self, ids: Int[Tensor, "B P"], mask: Int[Tensor, "B P"]) -> Float[Tensor, "B V"]:
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self.model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True)
        for layer in output.past_key_values.layers:
            self.buffers.append([F.pad(part, (0, 0, 0, ROOM)) for part in (layer.keys, layer.values)])
        # Added to the logits of attention: padding of the prompts is never seen. Of the queries' type: torch takes
        # another without a word and computes something else.
        bias = torch.zeros(len(ids), 1, 1, self.filled + ROOM, dtype=output.last_hidden_state.dtype)
        self.bias = bias.masked_fill_(~F.pad(self.seen, (0, ROOM), value=True)[:, None, None], -torch.inf)
        limit = self.config.max_position_embeddings
        cos, sin = self.model.rotary_emb(output.last_hidden_state, torch.arange(limit)[None])
        self.cos, self.sin = cos[0], sin[0]
        return self.head(output.last_hidden_state[:, -1]).float()

    def step(self, tokens: Int[Tensor, "b"]) -> Float[Tensor, "b V"]:
        """Return the logits after one more token of every row."""
        n, rows = self.filled, len(tokens)
        if n == self.bias.shape[-1]:
            self.bias = F.pad(self.bias, (0, ROOM))
            self.buffers = [[F.pad(part, (0, 0, 0, ROOM)) for part in layer] for layer in self.buffers]
        cos, sin = self.cos[self.positions][:, None], self.sin[self.positions][:, None]
        bias = self.bias[..., : n + 1]
        hidden = self.model.embed_tokens(tokens)
        size, both = self.width, self.heads + self.key_heads
        for (layer, qkv, qkv_bias, gate_up), (keys, values) in zip(self.layers, self.buffers, strict=True):
            x = _norm(hidden, layer.input_layernorm)
            x = F.linear(x, qkv, qkv_bias).view(rows, -1, size)
            turned, value = x[:, :both], x[:, both:]
            low, high = turned.chunk(2, dim=-1)
            turned = turned * cos + torch.cat([-high, low], dim=-1) * sin
            keys[:, :, n] = turned[:, self.heads :]
            values[:, :, n] = value
            # Queries of the heads that share a key head are rows of one small matrix.
            query = turned[:, : self.heads].reshape(rows, self.key_heads, -1, size)
            x = F.scaled_dot_product_attention(query, keys[:, :, : n + 1], values[:, :, : n + 1], attn_mask=bias)
            output = layer.self_attn.o_proj
            hidden = hidden + F.linear(x.reshape(rows, -1), output.weight, output.bias)
            gate, up = F.linear(_norm(hidden, layer.post_attention_layernorm), gate_up).chunk(2, dim=-1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.mlp.down_proj.weight)
        self.filled += 1
        self.positions = self.positions + 1
        return self.head(_norm(hidden, self.model.norm)).float()

    def keep(self, rows: Int[Tensor, "b"]) -> None:
        """Keep only these rows of the batch."""
        n = self.filled
        self.positions, self.bias = self.positions[rows], self.bias[rows]
        for layer in self.buffers:
            for i, part in enumerate(layer):
                kept = part.new_empty(len(rows), *part.shape[1:])
                kept[:, :, :n] = part[rows, :, :n]
                layer[i] = kept


def _fused(layer: Any) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the concatenated weight and bias of queries, keys and values, and the weight of gate and up."""
    attention, mlp = layer.self_attn, layer.mlp
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    return torch.cat([part.weight for part in parts]), bias, gate_up


def _norm(x: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


@torch.no_grad()
def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Replace `GenerationMixin.generate`: the fast loop for plain sampling, transformers for other calls."""
    ids, mask, config = kwargs.get("input_ids"), kwargs.get("attention_mask"), kwargs.get("generation_config")
    others = set(kwargs) - {"input_ids", "attention_mask", "generation_config", "disable_compile"}
    if args or others or ids is None or mask is None or config is None or not _plain(self, config):
        return STOCK(self, *args, **kwargs)
    ends, pad = config.eos_token_id, config.pad_token_id
    ends = torch.tensor([ends] if isinstance(ends, int) else list(ends))
    return sample(self, ids, mask, config.max_new_tokens, ends, pad)


def _plain(model: Any, config: Any) -> bool:
    """Whether a call samples from the plain distribution of a plain Llama on the CPU."""
    plain = all(getattr(config, name, None) in values for name, values in NEUTRAL.items())
    rope = getattr(model.config, "rope_parameters", None) or {}
    usual = rope.get("rope_type", "default") == "default" and model.config.hidden_act == "silu"
    sampled = bool(config.do_sample) and config.max_new_tokens is not None and config.pad_token_id is not None
    return plain and usual and sampled and model.device.type == "cpu" and not model.config.mlp_bias


@torch.no_grad()
def sample(
    model: LlamaForCausalLM,
    ids: Int[Tensor, "B P"],
    mask: Int[Tensor, "B P"],
    most: int,
    ends: Int[Tensor, "E"],
    pad: int,
) -> Int[Tensor, "B P+T"]:
    """Return prompts and responses, right-padded, as `generate` does."""
    decoder = Decoder(model, mask)
    logits = decoder.prefill(ids, mask)
    active = torch.arange(len(ids))  # which row of the whole batch every row of the decoder is
    going = torch.ones(len(ids), dtype=torch.bool)
    columns = []
    while True:
        # What torch.multinomial does; for all rows, so that the numbers drawn are those of stock sampling.
        noise = torch.empty(len(ids), logits.shape[-1]).exponential_()
        chosen = (logits.softmax(dim=-1) / noise[active]).argmax(dim=-1)
        column = torch.full((len(ids),), pad, dtype=ids.dtype)
        here = going[active]
        column[active[here]] = chosen[here]
        columns.append(column)
        going[active[here]] = ~torch.isin(chosen[here], ends)
        if len(columns) == most or not going.any():
            return torch.cat([ids, torch.stack(columns, dim=1)], dim=1)
        here = going[active]
        if here.sum() <= LEAVE * len(active):
            decoder.keep(here.nonzero()[:, 0])
            active, chosen = active[here], chosen[here]
        logits = decoder.step(chosen)


LlamaForCausalLM.generate = generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="overthinker")
    parser.add_argument("--problems", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from transformers import AutoTokenizer, GenerationConfig

    from attnpo.models import resolve_model
    from attnpo.task.dataset import build_dataset

    path = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    config = GenerationConfig(
        max_new_tokens=2048, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    print("| round | tokens | transformers: s, tokens/s | here: s, tokens/s | responses that differ |")
    print("|---|---|---|---|---|")
    for number in range(args.rounds):
        rows = build_dataset(args.problems, seed=number, split="test", difficulty=(1, 3))
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["problem"]}], add_generation_prompt=True, tokenize=False
            )
            for row in rows
            for _ in range(8)
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True)
        found, cells = [], []
        for run in (STOCK, generate):
            torch.manual_seed(number)
            started = time.process_time()
            given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
            found.append(run(model, **given, generation_config=config))
            seconds = time.process_time() - started
            tokens = int((found[-1][:, inputs["input_ids"].shape[1] :] != config.pad_token_id).sum())
            cells.append(f"{seconds:.1f}, {tokens / seconds:.0f}")
        width = max(part.shape[1] for part in found)
        padded = [F.pad(part, (0, width - part.shape[1]), value=config.pad_token_id) for part in found]
        different = int((padded[0] != padded[1]).any(dim=1).sum())
        print(f"| {number} | {tokens} | {cells[0]} | {cells[1]} | {different} of {len(texts)} |")


if __name__ == "__main__":
    main()
