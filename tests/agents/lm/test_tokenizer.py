from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sentencepiece")
pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

import llama_cpp

from rapport.agents.lm.gguf import write_gguf
from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.tokenizer import Kind, Piece, Tokenizer, learn_tokenizer

PHRASES = ["Sport & news", "喜剧", '{"categories": ["', "\n- ", " 7 of 12"]
TEXTS = [
    "You choose which categories of content one user of a feed is shown next, and the user clicks on some of them.",
    "What this user clicked before: Comedy 7/12, Sport & news 0/3, Beauty 10/10.",
    'Answer with JSON only: {"categories": ["Comedy", "Sport & news"]}',
    '{"categories": ["Beauty", "Comedy", "Küche"]}',
] * 5
PROMPTS = [
    "",
    " ",
    "  \n\n  \n",
    " leading and trailing ",
    "The categories:\n- Comedy: 12% of 1234\n- Sport & news: 3.05%\n- Küche\n\nYour choice for the next slate:\n",
    '{"categories": ["Sport & news", "喜剧", "🎵 music", "a\\tb"]}',
    "<s>not a mark</s> <unk> <0x0A> <0x0>\r\n\t\x00 \u2581 \ue000 e\u0301",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn_tokenizer(TEXTS, 560, PHRASES)


@pytest.fixture(scope="module")
def llama(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> llama_cpp.Llama:
    model = Llama(LlamaConfig(tokenizer.n_vocab, d_model=8, n_layers=1, n_heads=1, d_ff=8))
    path = write_gguf(tmp_path_factory.mktemp("lm") / "vocabulary.gguf", model, tokenizer, name="vocabulary")
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


def theirs(llama: llama_cpp.Llama, text: str) -> list[int]:
    return list(llama.tokenize(text.encode(), add_bos=False, special=False))


def written(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.pieces()[token].text for token in tokenizer.encode(text)]


@pytest.mark.parametrize("text", PROMPTS + TEXTS[:4] + PHRASES)
def test_prompts_are_cut_up_as_llama_cpp_does(tokenizer: Tokenizer, llama: llama_cpp.Llama, text: str) -> None:
    assert tokenizer.encode(text) == theirs(llama, text)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_text_is_cut_up_as_llama_cpp_does(
    tokenizer: Tokenizer, llama: llama_cpp.Llama, data: st.DataObject
) -> None:
    pieces = st.sampled_from([piece.text.replace("\u2581", " ") for piece in tokenizer.pieces()])
    text = "".join(data.draw(st.lists(pieces | st.text(max_size=8), max_size=30)))
    tokens = tokenizer.encode(text)
    assert tokens == theirs(llama, text)
    assert tokenizer.decode(tokens) == text.replace("\u2581", " ")


@settings(max_examples=100, deadline=None)
@given(prompt=st.text(), answer=st.text())
def test_what_is_encoded_in_parts_reads_as_a_whole(tokenizer: Tokenizer, prompt: str, answer: str) -> None:
    tokens = tokenizer.encode(prompt) + tokenizer.encode(answer)
    assert tokenizer.decode(tokens) == (prompt + answer).replace("\u2581", " ")


def test_llama_cpp_reads_the_same_text(tokenizer: Tokenizer, llama: llama_cpp.Llama) -> None:
    for text in PROMPTS:
        tokens = tokenizer.encode(text)
        assert llama.detokenize(tokens).decode() == tokenizer.decode(tokens)
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode("é"), tokenizer.eos]) == "é"
    assert tokenizer.decode([3 + 0xC3]) == "\ufffd"


def test_numbers_are_two_digits_at_a_time(tokenizer: Tokenizer) -> None:
    assert written(tokenizer, "12345") == ["12", "34", "5"]
    assert all(len(tokenizer.encode(f"{number}")) == 1 for number in range(100))


def test_a_name_is_the_same_piece_in_a_list_and_in_json(tokenizer: Tokenizer) -> None:
    for text in ("Comedy 1/2", "- Comedy", "Beauty, Comedy 3/4", '["Comedy"]', '"Beauty", "Comedy"'):
        assert "Comedy" in written(tokenizer, text)


def test_each_phrase_is_one_piece(tokenizer: Tokenizer) -> None:
    assert all(len(tokenizer.encode(phrase)) == 1 for phrase in PHRASES)
    assert written(tokenizer, PHRASES[2] + PHRASES[0] + '"') == [PHRASES[2].replace(" ", "▁"), "Sport▁&▁news", '"']


def test_learning_is_reproducible_and_keeps_to_its_size(tokenizer: Tokenizer) -> None:
    assert learn_tokenizer(TEXTS, 560, PHRASES).pieces() == tokenizer.pieces()
    assert learn_tokenizer(TEXTS, 500).n_vocab == 500
    assert learn_tokenizer(TEXTS, 5000).n_vocab < 1000
    assert Tokenizer.from_bytes(tokenizer.to_bytes()).pieces() == tokenizer.pieces()


def test_impossible_vocabularies_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="larger n_vocab"):
        learn_tokenizer(TEXTS, 400)
    with pytest.raises(ValueError, match="from 0 different words"):
        learn_tokenizer([], 600)
    with pytest.raises(ValueError, match="must begin with <unk>"):
        Tokenizer(tokenizer.pieces()[1:])
    with pytest.raises(ValueError, match="'Comedy' is in the vocabulary more than once"):
        Tokenizer([*tokenizer.pieces(), Piece("Comedy", -1.0, Kind.NORMAL)])
