"""The corpus holds each paragraph once, and nothing held out is trained on."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.sources.corpus import corpus, split_passages

paragraph = st.text("ab \n", max_size=6)
topics = st.dictionaries(
    st.text("xyz", min_size=1, max_size=3), st.lists(paragraph).map("\n\n".join), max_size=6
)


def paragraphs(text: str) -> list[str]:
    return [p.strip() for p in text.split("\n\n") if p.strip()]


@given(topics, st.integers(1, 30))
def test_every_paragraph_is_kept_exactly_once(texts: dict[str, str], size: int) -> None:
    kept = [p for passage in split_passages(texts, size) for p in paragraphs(passage.text)]
    assert len(kept) == len(set(kept))
    assert set(kept) == {p for text in texts.values() for p in paragraphs(text)}


@given(topics, st.integers(1, 30))
def test_passages_end_when_they_are_long_enough(texts: dict[str, str], size: int) -> None:
    passages = list(split_passages(texts, size))
    for passage, after in pairwise(passages):
        if after.number:
            assert after.topic == passage.topic
            assert len(passage.text.encode()) + 2 >= size
    assert len({(p.topic, p.number) for p in passages}) == len(passages)


def test_a_tenth_is_held_out_and_never_trained_on() -> None:
    texts = corpus()
    sizes = [sum(len(p.text.encode()) for p in part) for part in (texts.training, texts.heldout)]
    assert 0.07 < sizes[1] / sum(sizes) < 0.13
    assert sum(sizes) > 300_000
    trained = {p for passage in texts.training for p in paragraphs(passage.text)}
    assert not trained & {p for passage in texts.heldout for p in paragraphs(passage.text)}


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_smaller_share_of_the_training_text_is_within_a_larger_one(a: float, b: float) -> None:
    texts = corpus()
    small, large = texts.share(min(a, b)), texts.share(max(a, b))
    assert set(small) <= set(large) <= set(texts.training)
    assert list(small) == [p for p in texts.training if p in set(small)]
    longest = max(len(p.text.encode()) for p in texts.training)
    total = sum(len(p.text.encode()) for p in texts.training)
    size = sum(len(p.text.encode()) for p in large)
    assert 0 <= size - max(a, b) * total < longest  # the last passage is taken whole


def test_what_was_seen_is_of_the_share_and_as_much_as_is_held_out() -> None:
    texts = corpus()
    assert texts.share(1.0) == texts.training
    assert len(texts.seen(1.0)) == len(texts.heldout)
    assert texts.seen(0.2) == texts.seen(1.0)
    few = texts.seen(0.02)
    assert 0 < len(few) < len(texts.heldout)
    assert set(few) == set(texts.share(0.02))


@given(st.floats(0, 1), st.floats(0, 1))
def test_shuffled_passages_keep_their_characters_and_a_larger_share_has_the_same(
    a: float, b: float
) -> None:
    texts = corpus()
    plain = texts.share(0.1)
    few, many = texts.share(0.1, min(a, b)), texts.share(0.1, max(a, b))
    for before, first, second in zip(plain, few, many, strict=True):
        assert sorted(before.text) == sorted(first.text)
        assert first.text in (before.text, second.text)
    assert texts.share(0.1, 0.0) == plain
    assert all(one.text != two.text for one, two in zip(plain, texts.share(0.1, 1.0), strict=True))
    assert set(texts.seen(0.1, max(a, b))) <= set(many)
