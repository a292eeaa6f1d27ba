"""GGUF files of the models of `rapport.agents.lm`: written for llama.cpp, and read back for further training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.tokenizer import Kind, Piece, Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

# The template adds nothing to the messages, so that the model reads the prompts it was trained on.
CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"

FreeField = str | int | float | bool


def write_gguf(
    path: str | PathLike[str],
    model: Llama,
    tokenizer: Tokenizer,
    *,
    name: str,
    precision: Literal["F16", "F32"] = "F16",
    licence: str = "Apache-2.0",
    metadata: Mapping[str, FreeField] | None = None,
) -> Path:
    """Write a model to a file that llama.cpp runs; it replaces an older file atomically.

    Args:
        path: the file.
        model: the weights.
        tokenizer: the vocabulary.
        name: ``general.name``.
        precision: type of the matrices; norms are always F32.
        licence: ``general.license``, an SPDX identifier.
        metadata: further fields, by keys such as ``rapport.steps``.

    Returns:
        The path.

    Raises:
        ImportError: gguf is not installed.
        ValueError: model and tokenizer have vocabularies of different sizes.
    """
    gguf = _gguf()
    path = Path(path)
    if tokenizer.n_vocab != model.config.n_vocab:
        raise ValueError(
            f"the model has n_vocab={model.config.n_vocab} and the tokenizer {tokenizer.n_vocab}: "
            "create the model with n_vocab=tokenizer.n_vocab"
        )
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if precision == "F16" else gguf.LlamaFileType.ALL_F32)
    writer.add_name(name)
    writer.add_license(licence)
    _add_shape(writer, model.config)
    _add_vocabulary(writer, tokenizer)
    for key, value in (metadata or {}).items():
        _add_field(writer, key, value)
    matrices = np.float16 if precision == "F16" else np.float32
    for key, weight in _tensors(model):
        values = weight.detach().cpu().numpy()
        writer.add_tensor(key, values.astype(matrices if values.ndim == 2 else np.float32))
    _write_atomically(writer, path)
    return path


def read_gguf(path: str | PathLike[str]) -> tuple[Llama, Tokenizer]:
    """Read a file of `write_gguf`.

    Raises:
        ImportError: gguf is not installed.
        FileNotFoundError: there is no such file.
        ValueError: the file has another kind of model.
    """
    gguf = _gguf()
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    tokenizer = _vocabulary(reader)
    model = Llama(_shape(reader, tokenizer.n_vocab, tied="output.weight" not in tensors))
    wanted = dict(_tensors(model))
    if wanted.keys() != tensors.keys():
        odd = sorted(wanted.keys() ^ tensors.keys())
        raise ValueError(f"{path} has other tensors than a model of rapport.agents.lm, such as {odd[0]!r}")
    with torch.no_grad():
        for key, weight in wanted.items():
            weight.copy_(_weights(key, tensors[key], weight.shape))
    return model, tokenizer


def _write_atomically(writer: GGUFWriter, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer.write_header_to_file(part)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError('GGUF files need the package gguf: pip install "rapport-gym[lm]"') from error
    return gguf


def _tensors(model: Llama) -> Iterator[tuple[str, Tensor]]:
    """Tensor names of the GGUF file with the model's weights (views, not copies)."""
    yield "token_embd.weight", model.embedding.weight
    for number, block in enumerate(model.blocks):
        query, key, value = block.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        parts = {
            "attn_norm": block.attention_norm.weight,
            "attn_q": query,
            "attn_k": key,
            "attn_v": value,
            "attn_output": block.mix.weight,
            "ffn_norm": block.feed_norm.weight,
            "ffn_gate": gate,
            "ffn_up": up,
            "ffn_down": block.down.weight,
        }
        for name, weight in parts.items():
            yield f"blk.{number}.{name}.weight", weight
    yield "output_norm.weight", model.norm.weight
    if model.output is not None:
        yield "output.weight", model.output.weight


def _add_shape(writer: GGUFWriter, config: LlamaConfig) -> None:
    writer.add_context_length(config.max_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_vocab_size(config.n_vocab)


def _shape(reader: GGUFReader, n_vocab: int, tied: bool) -> LlamaConfig:
    return LlamaConfig(
        n_vocab=n_vocab,
        d_model=_field(reader, "llama.embedding_length"),
        n_layers=_field(reader, "llama.block_count"),
        n_heads=_field(reader, "llama.attention.head_count"),
        d_ff=_field(reader, "llama.feed_forward_length"),
        max_length=_field(reader, "llama.context_length"),
        rope_base=_decimal(_field(reader, "llama.rope.freq_base")),
        norm_eps=_decimal(_field(reader, "llama.attention.layer_norm_rms_epsilon")),
        tied=tied,
    )


def _add_vocabulary(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    pieces = tokenizer.pieces()
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text for piece in pieces])
    writer.add_token_scores([piece.score for piece in pieces])
    writer.add_token_types([int(piece.kind) for piece in pieces])
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_unk_token_id(tokenizer.unknown)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _vocabulary(reader: GGUFReader) -> Tokenizer:
    texts, scores, kinds = (_field(reader, f"tokenizer.ggml.{name}") for name in ("tokens", "scores", "token_type"))
    return Tokenizer([Piece(*entry) for entry in zip(texts, scores, map(Kind, kinds), strict=True)])


def _add_field(writer: GGUFWriter, key: str, value: FreeField) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_int64(key, value)
    elif isinstance(value, float):
        writer.add_float64(key, value)
    else:
        writer.add_string(key, value)


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ValueError(f"the GGUF file has no field {key!r}: it was not written by rapport.agents.lm")
    return field.contents()


def _decimal(value: float) -> float:
    """The shortest decimal of a 32-bit float: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _weights(key: str, values: NDArray[Any], shape: torch.Size) -> Tensor:
    if values.dtype not in (np.float16, np.float32) or values.shape != shape:
        raise ValueError(
            f"tensor {key!r} has shape {values.shape} and type {values.dtype}, not {tuple(shape)} and F16 or F32: "
            "only models of rapport.agents.lm without quantisation can be read"
        )
    return torch.from_numpy(values.astype(np.float32))
