"""A real GGUF file with a few thousand random weights: nonsense in content, a Llama model in every other respect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_CONV, _STATE, _RANK = 4, 8, 2

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 0,
    n_ctx: int = 4096,
    chat_template: str | None = None,
    scale: float = 1.0,
    n_embd: int = 16,
    n_head: int = 2,
    n_ff: int = 32,
    n_layer: int = 1,
    pieces: Sequence[str] = (),
    dtype: type[np.floating[Any]] = np.float32,
    recurrent: bool = False,
) -> Path:
    """Write a model whose vocabulary is the 256 bytes, so that it can spell any text, and the given pieces.

    It is a Llama model, or where `recurrent` a Mamba model, whose memory cannot be divided into tokens.
    """
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "mamba" if recurrent else "llama")
    writer.add_name("tiny")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(0 if recurrent else n_ff)
    writer.add_head_count(0 if recurrent else n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    n_vocab = _add_vocabulary(writer, pieces)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (scale * rng.normal(0, 0.3, shape)).astype(dtype))

    add("token_embd.weight", n_vocab, n_embd)
    add("output.weight", n_vocab, n_embd)
    writer.add_tensor("output_norm.weight", np.ones(n_embd, dtype=np.float32))
    for layer in range(n_layer):
        if recurrent:
            _add_mamba_layer(writer, f"blk.{layer}", n_embd, rng)
            continue
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(n_embd, dtype=np.float32))
        for projection in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{projection}.weight", n_embd, n_embd)
        add(f"blk.{layer}.ffn_gate.weight", n_ff, n_embd)
        add(f"blk.{layer}.ffn_up.weight", n_ff, n_embd)
        add(f"blk.{layer}.ffn_down.weight", n_embd, n_ff)
    if recurrent:
        writer.add_ssm_conv_kernel(_CONV)
        writer.add_ssm_inner_size(2 * n_embd)
        writer.add_ssm_state_size(_STATE)
        writer.add_ssm_time_step_rank(_RANK)
    else:
        writer.add_head_count_kv(n_head)
        writer.add_rope_dimension_count(n_embd // n_head)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_mamba_layer(writer: gguf.GGUFWriter, name: str, n_embd: int, rng: np.random.Generator) -> None:
    inner = 2 * n_embd
    shapes = {
        "ssm_in.weight": (2 * inner, n_embd),
        "ssm_conv1d.weight": (inner, _CONV),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (_RANK + 2 * _STATE, inner),
        "ssm_dt.weight": (inner, _RANK),
        "ssm_dt.bias": (inner,),
        "ssm_d": (inner,),
        "ssm_out.weight": (n_embd, inner),
    }
    for part, shape in shapes.items():
        writer.add_tensor(f"{name}.{part}", rng.normal(0, 0.3, shape).astype(np.float32))
    writer.add_tensor(f"{name}.ssm_a", -np.exp(rng.normal(0, 0.3, (inner, _STATE))).astype(np.float32))
    writer.add_tensor(f"{name}.attn_norm.weight", np.ones(n_embd, dtype=np.float32))


def _add_vocabulary(writer: gguf.GGUFWriter, pieces: Sequence[str]) -> int:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *pieces]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (1 + len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (len(tokens) - len(pieces)) + [-float(rank) for rank in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens)
