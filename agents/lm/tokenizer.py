"""Tokenizer that gives the tokens of llama.cpp's "llama" tokenizer with the same vocabulary.

The vocabulary is byte-pair encoding in SentencePiece's form (arXiv 1808.06226): pieces with scores, and the 256 bytes
as a fallback for text that no piece covers.
"""

from __future__ import annotations

import heapq
import io
import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

_SPACE = "\u2581"
"""Symbol that SentencePiece and llama.cpp write for a space."""

_MASK = "\ue000"
"""Symbol for a space while SentencePiece learns, because it learns no pieces that end with a real space."""

# A word with the space before it, a single digit, or punctuation with the spaces around it. The space between a comma
# or bullet and a word belongs to the comma, so that a name is the same piece in a list and in JSON.
_WORD = re.compile(r" ?[^\W\d_]+|\d| ?(?:[^\w\s]|_)+(?: (?:[^\w\s]|_)+)* ?| +")
_GLUE = re.compile(r"(?:[^\w]|_)+")


class Kind(IntEnum):
    """Kinds of pieces, numbered as in GGUF files."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


class Piece(NamedTuple):
    """An entry of the vocabulary."""

    text: str
    score: float
    kind: Kind


_SPECIAL = [
    Piece("<unk>", 0.0, Kind.UNKNOWN),
    Piece("<s>", 0.0, Kind.CONTROL),
    Piece("</s>", 0.0, Kind.CONTROL),
    *(Piece(f"<0x{byte:02X}>", 0.0, Kind.BYTE) for byte in range(256)),
]


class Tokenizer:
    """Byte-pair encoding with a given vocabulary.

    No space or token is added to a text, so that the tokens of a prompt and of its completion can be concatenated. The
    symbol U+2581 stands for a space.
    """

    unknown, bos, eos = 0, 1, 2

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Create a tokenizer.

        Args:
            pieces: the vocabulary in the order of ids: ``<unk>``, ``<s>``, ``</s>``, the 256 bytes, then the others.

        Raises:
            ValueError: the special pieces are not in this order, or a piece is there twice.
        """
        if [(p.text, p.kind) for p in pieces[: len(_SPECIAL)]] != [(p.text, p.kind) for p in _SPECIAL]:
            raise ValueError("pieces must begin with <unk>, <s>, </s> and the bytes <0x00> to <0xFF>, in this order")
        self._pieces = list(pieces)
        self._ids = {piece.text: index for index, piece in enumerate(pieces)}
        if len(self._ids) < len(pieces):
            doubled = next(text for text, n in Counter(piece.text for piece in pieces).items() if n > 1)
            raise ValueError(f"piece {doubled!r} is in the vocabulary more than once: keep one of them")
        self._scores = {piece.text: piece.score for piece in pieces}
        self._joined = {piece.text[at : at + 2] for piece in pieces for at in range(len(piece.text) - 1)}
        self._part_ids = lru_cache(maxsize=2**16)(self._encode_part)

    @property
    def n_vocab(self) -> int:
        """Number of pieces."""
        return len(self._pieces)

    def pieces(self) -> list[Piece]:
        """The vocabulary, in the order of ids."""
        return list(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without the begin and end tokens."""
        return [token for part in self._parts(text.replace(" ", _SPACE)) for token in self._part_ids(part)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens; invalid UTF-8 becomes U+FFFD, and the begin, end and unknown tokens are left out."""
        data = bytearray()
        for token in tokens:
            text, _, kind = self._pieces[token]
            if kind is Kind.BYTE:
                data.append(int(text[1:-1], 16))
            elif kind is Kind.NORMAL:
                data += text.replace(_SPACE, " ").encode()
        return data.decode(errors="replace")

    def symbols(self, text: str) -> list[str]:
        """Pieces of a text, with U+2581 for spaces and a single character where the bytes have to spell it."""
        return [symbol for part in self._parts(text.replace(" ", _SPACE)) for symbol in self._merge(part)]

    def to_bytes(self) -> bytes:
        """The vocabulary as the content of a file."""
        return json.dumps([list(piece) for piece in self._pieces], ensure_ascii=False).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Tokenizer:
        """A vocabulary saved by `to_bytes`."""
        return Tokenizer([Piece(text, score, Kind(kind)) for text, score, kind in json.loads(data)])

    def _parts(self, text: str) -> Iterator[str]:
        """Split a text where no piece spans: merges on both sides are independent, and recurring parts are cached."""
        start = 0
        for at in range(1, len(text)):
            if text[at - 1 : at + 1] not in self._joined:
                yield text[start:at]
                start = at
        if text:
            yield text[start:]

    def _encode_part(self, part: str) -> list[int]:
        ids: list[int] = []
        for symbol in self._merge(part):
            token = self._ids.get(symbol)
            ids += [token] if token is not None else [3 + byte for byte in symbol.encode()]
        return ids

    def _merge(self, part: str) -> list[str]:
        """Merge the neighbours that form the piece of the highest score, the leftmost first, until none do."""
        symbols = list(part)
        following = list(range(1, len(symbols) + 1))
        before = list(range(-1, len(symbols) - 1))
        queue: list[tuple[float, int, str]] = []

        def offer(left: int) -> None:
            if left >= 0 and following[left] < len(symbols):
                joined = symbols[left] + symbols[following[left]]
                if joined in self._scores:
                    heapq.heappush(queue, (-self._scores[joined], left, joined))

        for left in range(len(symbols) - 1):
            offer(left)
        while queue:
            _, left, joined = heapq.heappop(queue)
            right = following[left]
            if not symbols[left] or right == len(symbols) or symbols[left] + symbols[right] != joined:
                continue  # one of the two has already been merged with another symbol
            symbols[left], symbols[right] = joined, ""
            following[left] = following[right]
            if following[left] < len(symbols):
                before[following[left]] = left
            offer(before[left])
            offer(left)
        return [symbol for symbol in symbols if symbol]


def learn_tokenizer(texts: Iterable[str], n_vocab: int = 1280, phrases: Sequence[str] = ()) -> Tokenizer:
    """Learn a vocabulary by byte-pair encoding with SentencePiece.

    Numbers are encoded two digits at a time, and punctuation apart from words.

    Args:
        texts: the corpus.
        n_vocab: most pieces, those of phrases not counted; there are fewer where the texts do not give as many.
        phrases: texts that become one piece each, such as frequent names. A phrase is one piece where it stands alone
            or between punctuation; in running text its first word may be merged with the space before it.

    Raises:
        ImportError: sentencepiece is not installed.
        ValueError: there are no texts, or n_vocab is too small for the bytes, numbers and single characters.
    """
    words = Counter(word.replace(" ", _MASK) for text in texts for word in _WORD.findall(text) if word.isprintable())
    numbers = [Piece(f"{number:02d}", 0.0, Kind.NORMAL) for number in range(100)]
    learned = _learn(words, n_vocab - len(numbers))
    # Punctuation is merged first, so that the pieces of a word do not depend on its surroundings.
    learned.sort(key=lambda text: _GLUE.fullmatch(text) is None)
    pieces = [*_SPECIAL, *numbers, *(Piece(text, -1.0 - n, Kind.NORMAL) for n, text in enumerate(learned))]
    return _with_phrases(Tokenizer(pieces), phrases)


def _learn(words: Counter[str], n_vocab: int) -> list[str]:
    """Pieces of words in the order of their merges, single characters last."""
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError('learning a vocabulary needs sentencepiece: pip install "rapport-gym[lm]"') from error
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{count}" for word, count in sorted(words.items())),
            input_format="tsv",
            model_writer=model,
            model_type="bpe",
            vocab_size=n_vocab,
            hard_vocab_limit=False,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_unicode_script=False,
            split_by_number=False,
            max_sentencepiece_length=32,
            character_coverage=0.9999,
            required_chars=string.ascii_letters + string.digits + string.punctuation + _MASK,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"SentencePiece learned no vocabulary from {len(words)} different words: {error} "
            "(give more texts or a larger n_vocab; letters, numbers and bytes alone take about 460)"
        ) from error
    made = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    texts = [made.IdToPiece(index) for index in range(len(_SPECIAL), made.GetPieceSize())]
    return [text.replace(_MASK, _SPACE) for text in texts]


def _with_phrases(tokenizer: Tokenizer, phrases: Iterable[str]) -> Tokenizer:
    """Add merges, after all others, that make each phrase a piece from left to right."""
    for phrase in phrases:
        pieces = tokenizer.pieces()
        known = {piece.text for piece in pieces}
        beginnings = accumulate(tokenizer.symbols(phrase))
        for text in [text for text in beginnings if text not in known and len(text) > 1]:
            pieces.append(Piece(text, -float(len(pieces)), Kind.NORMAL))
        tokenizer = Tokenizer(pieces)
    return tokenizer
