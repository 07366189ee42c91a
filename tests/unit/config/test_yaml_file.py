from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config.yaml_file import LARGEST_FILE, Document, parse_yaml, read_yaml
from events.errors import ConfigError
from sluice.yaml_file import write_yaml

PATH = Path("f.yaml")


def parse(text: str) -> Document:
    return parse_yaml(text.encode(), PATH)


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text.encode() if isinstance(text, str) else text, PATH)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: yes", {"on": "yes"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        (
            "a: [1, -2, 0.5, .5, 1e3, true, null, ~, '1', 010]",
            {"a": [1, -2, 0.5, 0.5, 1000.0, True, None, None, "1", 10]},
        ),
        ("a: 123456789012345678901234567890", {"a": "123456789012345678901234567890"}),
        ("a: 1e999", {"a": "1e999"}),
        ("1: x", {"1": "x"}),
        ("true: x", {"true": "x"}),
        ("a:", {"a": None}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("", None),
    ],
)
def test_scalars_are_read_as_yaml_1_2_says(text: str, value: object) -> None:
    document = parse(text)
    assert document.data == value
    assert document.problems == ()


def test_every_part_knows_its_line() -> None:
    document = parse("a:\n  - x: 1\n    y:\n      z: 2\nb: 3\n")
    assert document.where(("a", 0, "y", "z")) == "f.yaml:4"
    assert document.where(("a", 0, "gone", "deeper")) == "f.yaml:2"
    assert document.where(("b",)) == "f.yaml:5"
    assert document.where(("c",)) == "f.yaml:1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: the key 'a' stands there twice, first in line 1"),
        ("a:\n  <<: {b: 1}", "f.yaml:2: merge keys"),
        ("a: {{ event.id }}", "f.yaml:1: a key must be text (quote it if it is a template)"),
        ("a: !!python/object:os.system x", "f.yaml:1: the tag"),
        ("a: !secret x", "f.yaml:1: the tag '!secret'"),
    ],
)
def test_what_cannot_be_meant_is_a_problem_with_its_line(text: str, said: str) -> None:
    (problem,) = parse(text).problems
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "f.yaml:1: this is not YAML"),
        ("a: b: c", "f.yaml:1: this is not YAML"),
        ("a: 1\n\tb: 2", "f.yaml:2: this is not YAML"),
        ("a: 1\n---\nb: 1", "f.yaml:2: this is not YAML"),
        ("a: *x", "f.yaml:1: this is not YAML"),
        ("a: &a [*a]", "f.yaml:1: the file holds too much, or nests too deeply"),
        (b"\xff\xfe\x00", "f.yaml: this is not YAML"),
        ("\x00", "f.yaml: this is not YAML"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str | bytes, said: str) -> None:
    assert refusal(text).startswith(said)


def test_anchors_cannot_make_a_small_file_large() -> None:
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    assert "too much" in refusal(bomb)


def test_a_file_that_is_not_there_or_too_large_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(ConfigError, match="at most"):
        read_yaml(large)


@given(st.text(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>'\"#%@, \n", max_size=40))
def test_any_text_is_a_document_or_a_configuration_error(text: str) -> None:
    try:
        document = parse_yaml(text.encode("utf-8", "surrogatepass"), PATH)
    except ConfigError:
        return
    assert all(problem.startswith("f.yaml:") for problem in document.problems)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1", max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
@example(["\xad\u0100A", "\xad\\uABCD"])
@example({"a": ["1e3", "0o7", "on", "12:30", "~", "", "1_0", "2026-01-01", "\u202ex", " x"]})
def test_what_is_written_is_read_as_it_was(value: object) -> None:
    assert parse_yaml(write_yaml(value).encode(), PATH).data == value
