from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

import gguf
import llama_cpp

from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.lm.gguf import read_gguf, write_gguf
from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.tokenizer import Kind, Piece, Tokenizer

LENGTH = 128


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    pieces = [Piece("<unk>", 0.0, Kind.UNKNOWN), Piece("<s>", 0.0, Kind.CONTROL), Piece("</s>", 0.0, Kind.CONTROL)]
    pieces += [Piece(f"<0x{byte:02X}>", 0.0, Kind.BYTE) for byte in range(256)]
    words = ["\u2581", "a", "b", "ab", "\u2581ab", '{"', "\n"]
    return Tokenizer(pieces + [Piece(word, -float(rank), Kind.NORMAL) for rank, word in enumerate(words)])


def made(tokenizer: Tokenizer, tied: bool = True) -> Llama:
    """A model with weights large enough that its layers matter to the result."""
    generator = torch.Generator().manual_seed(0)
    config = LlamaConfig(tokenizer.n_vocab, d_model=64, n_layers=3, n_heads=4, d_ff=96, max_length=LENGTH, tied=tied)
    model = Llama(config, generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.15 * torch.randn(weight.shape, generator=generator)
    return model


def opened(path: Path) -> llama_cpp.Llama:
    """The file in llama.cpp, which keeps keys and values in half precision unless told otherwise."""
    full = llama_cpp.GGML_TYPE_F32
    return llama_cpp.Llama(
        str(path), n_ctx=LENGTH, logits_all=True, n_threads=1, type_k=full, type_v=full, verbose=False
    )


def logits_of(llama: llama_cpp.Llama, tokens: list[int]) -> torch.Tensor:
    llama.reset()
    llama.eval(tokens)
    return torch.from_numpy(np.array(llama.scores[: len(tokens)]))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("precision", "tolerance"), [("F32", 1e-3), ("F16", 0.1)])
def test_llama_cpp_computes_the_same(
    tmp_path: Path, tokenizer: Tokenizer, tied: bool, precision: Literal["F16", "F32"], tolerance: float
) -> None:
    model = made(tokenizer, tied)
    llama = opened(write_gguf(tmp_path / "model.gguf", model, tokenizer, name="test", precision=precision))
    generator = torch.Generator().manual_seed(1)
    tokens = [tokenizer.bos, *torch.randint(3, tokenizer.n_vocab, (100,), generator=generator).tolist()]
    with torch.no_grad():
        ours = model(torch.tensor([tokens]))[0]
    assert ours.std() > 1
    torch.testing.assert_close(ours, logits_of(llama, tokens), atol=tolerance, rtol=0)


def test_the_likeliest_continuation_is_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = made(tokenizer)
    llama = opened(write_gguf(tmp_path / "model.gguf", model, tokenizer, name="test", precision="F32"))
    prompt = [tokenizer.bos, *tokenizer.encode('ab a b\n{"')]
    logits, cache = model.prefill(torch.tensor([prompt]), torch.tensor([len(prompt)]), room=60)
    ours: list[int] = []
    for _ in range(60):
        ours.append(int(logits.argmax()))
        logits = model.decode_step(torch.tensor(ours[-1:]), cache)
    theirs: list[int] = []
    while len(theirs) < 60:
        theirs.append(int(logits_of(llama, prompt + theirs)[-1].argmax()))
    assert ours == theirs and len(set(ours)) > 5


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_read_back_whole(tmp_path: Path, tokenizer: Tokenizer, tied: bool) -> None:
    model = made(tokenizer, tied)
    again, same = read_gguf(write_gguf(tmp_path / "new" / "a.gguf", model, tokenizer, name="a", precision="F32"))
    assert again.config == model.config and same.pieces() == tokenizer.pieces()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    half, _ = read_gguf(write_gguf(tmp_path / "half.gguf", model, tokenizer, name="half"))
    text = torch.arange(100)[None]
    torch.testing.assert_close(half(text), model(text), atol=0.1, rtol=0)
    copied = write_gguf(tmp_path / "b.gguf", half, same, name="half").read_bytes()
    assert copied == (tmp_path / "half.gguf").read_bytes()


def test_the_file_says_what_it_is(tmp_path: Path, tokenizer: Tokenizer) -> None:
    notes = {"rapport.steps": 2**40, "rapport.loss": 0.5, "rapport.data": "made up", "rapport.tuned": True}
    model = made(tokenizer)
    path = write_gguf(tmp_path / "model.gguf", model, tokenizer, name="planner", licence="MIT", metadata=notes)
    reader = gguf.GGUFReader(path)
    for key, value in {"general.name": "planner", "general.license": "MIT", **notes}.items():
        assert reader.get_field(key).contents() == value
    norms = (2 * model.config.n_layers + 1) * model.config.d_model
    weights = 2 * (model.config.n_weights - norms) + 4 * norms
    assert weights < path.stat().st_size < weights + 2**14


def test_a_chat_asks_the_very_prompt(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_gguf(tmp_path / "model.gguf", made(tokenizer), tokenizer, name="test")
    prompt = " ab\na b:\n"
    expected = [tokenizer.bos, *tokenizer.encode(prompt)]
    assert LlamaCppLLM(path, n_threads=1).complete([prompt], None, 1)[0].prompt_tokens == len(expected)
    llama = opened(path)
    read: list[int] = []
    evaluate = llama.eval

    def watched(tokens: list[int]) -> None:
        read.extend(tokens)
        evaluate(tokens)

    llama.eval = watched
    llama.create_chat_completion([{"role": "user", "content": prompt}], max_tokens=1)
    assert read == expected


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "model.gguf", made(tokenizer), tokenizer, name="test")
    before = path.read_bytes()

    def full(writer: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="no space left"):
        write_gguf(path, made(tokenizer, tied=False), tokenizer, name="other")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_does_not_fit_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no field 'llama\.rope\.freq_base'"):
        read_gguf(tiny_gguf)
    with pytest.raises(FileNotFoundError):
        read_gguf(tmp_path / "missing.gguf")
    path, model = tmp_path / "model.gguf", made(tokenizer)
    with pytest.raises(ValueError, match=f"the tokenizer {tokenizer.n_vocab - 1}: create the model with"):
        write_gguf(path, model, Tokenizer(tokenizer.pieces()[:-1]), name="test")

    def twice(writer: gguf.GGUFWriter, length: int) -> None:
        writer.add_uint32("llama.feed_forward_length", 2 * length)

    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_feed_forward_length", twice)
        write_gguf(path, model, tokenizer, name="test")
    with pytest.raises(ValueError, match=r"'blk\.0\.ffn_gate\.weight' has shape \(96, 64\).*not \(192, 64\)"):
        read_gguf(path)
