"""Source and id together name an event: different pairs never share a name, and it stays short."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from events.identity import id_of, identity_of

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20)
tricky = st.text(alphabet="a@:~#\\0/ 0", min_size=1, max_size=6)
pairs = st.tuples(texts | tricky, texts | tricky)


@given(pairs, pairs)
@example(("/a", "b@c"), ("/a@b", "c"))
@example(("a:b", "c"), ("a", "b:c"))
@example(("s", "x"), ("s", identity_of("s", "x")))
@example(("s", identity_of("t", "x")), ("t", "x"))
def test_different_pairs_have_different_names(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (identity_of(*one) == identity_of(*other)) == (one == other)


@given(pairs)
def test_the_id_can_be_read_off_a_name_of_bounded_length(pair: tuple[str, str]) -> None:
    name = identity_of(*pair)
    assert id_of(name) == pair[1]
    assert len(name) == len(pair[1]) + 25
    assert len(identity_of("s" * 10_000, pair[1])) == len(name)


def test_the_name_is_the_same_in_every_process() -> None:
    assert identity_of("/shop", "order-1042") == "order-1042@5f6e9f78c22c3d891f88ff65"
