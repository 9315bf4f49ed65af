"""Text as numbers: its bytes, or byte pairs that were learnt from the training part."""

import functools
from collections.abc import Sequence
from typing import Any

from attnsweep.core.errors import UserError
from attnsweep.tasks.text import corpus
from attnsweep.tasks.text.space import BYTES


class Bytes:
    """Text to token ids and back, without loss: a token is a byte. `begin` is the id of what stands before
    the first token; the ids below `known` mean something.
    """

    begin = known = BYTES

    def encode(self, text: bytes) -> list[int]:
        return list(text)

    def decode(self, tokens: Sequence[int]) -> bytes:
        return bytes(token for token in tokens if token != self.begin)


class Pairs:
    """The same by byte pairs (https://arxiv.org/abs/1508.07909) over bytes, by the package tokenizers."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer, self.begin = tokenizer, size
        self.known = int(tokenizer.get_vocab_size())  # of a short text fewer than it was to learn

    def encode(self, text: bytes) -> list[int]:
        return list(self.tokenizer.encode(text.decode(), add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> bytes:
        text: str = self.tokenizer.decode([token for token in tokens if token != self.begin])
        return text.encode()


Encoding = Bytes | Pairs


def encoding_of(encoding: str, dataset: str, vocabulary: int | None) -> Encoding:
    """How a trial encodes its text. Raises UserError where the package for it is missing."""
    return Bytes() if encoding == "bytes" else learnt_pairs(dataset, vocabulary or 0)


@functools.lru_cache(maxsize=4)
def learnt_pairs(dataset: str, size: int) -> Pairs:
    """Byte pairs of a text's training part, the same on every machine. Raises UserError as `encoding_of`."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise UserError(
            "encoding='bpe' needs the package tokenizers; run: pip install 'attnsweep[bpe]', or use bytes"
        ) from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    blocks = corpus.parts(dataset)["train"]
    tokenizer.train_from_iterator((block.decode() for block in blocks), trainer)
    return Pairs(tokenizer, size)
