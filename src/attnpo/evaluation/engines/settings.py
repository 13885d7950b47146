"""What a model's own generation settings ask for beside its end tokens: told to be unused."""

from __future__ import annotations

from transformers import GenerationConfig

from attnpo.evaluation.engines.base import Sampling

_NO_CHOICE = {"eos_token_id", "pad_token_id", "bos_token_id", "use_cache", "transformers_version"}


def unused_settings(config: GenerationConfig, sampling: Sampling) -> list[str]:
    """What a model's settings ask for and the evaluation does not do, for people to read."""
    done = {"temperature": sampling.temperature, "top_p": sampling.top_p, "do_sample": sampling.temperature > 0}
    asked = {
        name: value
        for name, value in config.to_diff_dict().items()
        if name not in _NO_CHOICE
        and not name.startswith("_")
        and value not in (None, False)
        and done.get(name) != value
    }
    if not asked:
        return []
    listed = ", ".join(f"{name} {asked[name]}" for name in sorted(asked))
    return [f"the model's own generation settings are not used: {listed}"]
