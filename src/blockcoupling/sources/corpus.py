"""The training text: the documentation topics of Python's standard library.

`pydoc_data.topics` (what `help("if")` prints) is in every Python installation, about 0.4 MB of
English with code. Topics repeat each other's paragraphs; each paragraph is kept once, so that no
held-out text has been trained on. The text differs a little between Python versions.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from random import Random

from blockcoupling.errors import UserError

PASSAGE_BYTES = 1500
HELDOUT_EVERY = 10


@dataclass(frozen=True)
class Passage:
    """Consecutive paragraphs of one topic; `number` counts within the topic, from 0."""

    topic: str
    number: int
    text: str


@dataclass(frozen=True)
class Corpus:
    """Passages to train on, passages held out, a line on their origin, and SHA-256 of all text."""

    training: tuple[Passage, ...]
    heldout: tuple[Passage, ...]
    source: str
    digest: str

    def share(self, share: float, shuffled: float = 0.0) -> tuple[Passage, ...]:
        """So much of the training text, by bytes and in its order; a smaller share is within it.

        Args:
            share: In (0, 1]; one passage at least is taken.
            shuffled: Share of its passages whose characters are in random order, in [0, 1].
        """
        taken = set(self._drawn(share))
        return tuple(_shuffled(each, shuffled) for each in self.training if each in taken)

    def seen(self, share: float, shuffled: float = 0.0) -> tuple[Passage, ...]:
        """As many passages of a share of the training text as are held out, or all it has.

        They are the same for every share that is large enough.
        """
        drawn = self._drawn(share)[: len(self.heldout)]
        return tuple(_shuffled(each, shuffled) for each in drawn)

    def _drawn(self, share: float) -> tuple[Passage, ...]:
        """The passages of a share, in an order that has nothing to do with their topics."""
        texts = [(p, p.text.encode()) for p in self.training]
        texts.sort(key=lambda each: hashlib.sha256(each[1]).digest())
        wanted = share * sum(len(text) for _, text in texts)
        before = accumulate((len(text) for _, text in texts[:-1]), initial=0)
        ordered = zip(texts, before, strict=True)
        return tuple(passage for (passage, _), taken in ordered if taken < wanted)


def _shuffled(passage: Passage, share: float) -> Passage:
    """The passage with its characters in random order, if it is in the share that is shuffled.

    Both depend on its text alone: a smaller share is within a larger one, and every model sees the
    same order.
    """
    draw = Random(hashlib.sha256(passage.text.encode()).hexdigest())
    if draw.random() >= share:
        return passage
    order = sorted(range(len(passage.text)), key=lambda _: draw.random())
    return replace(passage, text="".join(passage.text[place] for place in order))


@cache
def corpus() -> Corpus:
    """The corpus of the running Python; every tenth passage is held out.

    Raises:
        UserError: this Python has been installed without `pydoc_data`.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python has no pydoc_data, the text that the built-in study is trained on; "
            "install the complete standard library (Debian and Ubuntu: libpython3-stdlib)"
        ) from error
    passages = tuple(split_passages(topics))
    digest = hashlib.sha256("\0".join(p.text for p in passages).encode()).hexdigest()
    return Corpus(
        training=tuple(p for n, p in enumerate(passages) if (n + 1) % HELDOUT_EVERY),
        heldout=passages[HELDOUT_EVERY - 1 :: HELDOUT_EVERY],
        source=f"pydoc_data.topics of Python {platform.python_version()}, sha256 {digest[:12]}",
        digest=digest,
    )


def split_passages(topics: Mapping[str, str], size: int = PASSAGE_BYTES) -> Iterator[Passage]:
    """Cut topics, in alphabetical order, into passages of whole paragraphs, no paragraph twice.

    Args:
        topics: Text of each topic; paragraphs are separated by empty lines.
        size: A passage ends with the paragraph that brings it to this many bytes.
    """
    seen: set[str] = set()
    for topic in sorted(topics):
        number, paragraphs, length = 0, [], 0
        for paragraph in topics[topic].split("\n\n"):
            if not (key := paragraph.strip()) or key in seen:
                continue
            seen.add(key)
            paragraphs.append(paragraph)
            length += len(paragraph.encode()) + 2
            if length >= size:
                yield Passage(topic, number, "\n\n".join(paragraphs))
                number, paragraphs, length = number + 1, [], 0
        if paragraphs:
            yield Passage(topic, number, "\n\n".join(paragraphs))
