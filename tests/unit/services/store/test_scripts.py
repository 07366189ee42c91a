"""The Lua files: each parses and is used, knows every name that it says, and is called by the names of its header."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.operations.upkeep.inspector import declared_keys
from services.store import scripts
from services.store.connection import AsyncRedis
from services.store.scripts import EVEN_WHEN_FULL, FOLDER, Script, run_all

SERVICES = FOLDER.parent.parent
NAMES = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.lua"))
CALLED = [name for name in NAMES if not name.startswith("shared/")]

_NOISE = re.compile(r"#!.*|--.*|'(?:\\.|[^'\\])*'")
_WORD = re.compile(r"(?<![\w.:])[A-Za-z_]\w*")
_KNOWN = re.compile(r"\bfunction ?(\w*)\(([^)]*)\)|\blocal (?!function)((?:\w+, )*\w+)|\bfor ((?:\w+, )*\w+) (?:in|=)")
_BUILT_IN = set(
    "ARGV KEYS and break cjson do else elseif end error false for function if in ipairs local math nil not or pcall"  # noqa: SIM905
    " redis repeat return string table then tonumber true type unpack until while".split()
)


def words(text: str) -> set[str]:
    return set(_WORD.findall(_NOISE.sub("", text)))


def defined(text: str) -> set[str]:
    found = (group for match in _KNOWN.finditer(_NOISE.sub("", text)) for group in match.groups() if group)
    return {name.strip() for names in found for name in names.split(",")} | {"_"}


@pytest.mark.parametrize("name", NAMES)
async def test_a_script_parses_and_names_nothing_that_there_is_not(redis: AsyncRedis, name: str) -> None:
    script = Script(name)
    assert await redis.script_load(script.text) == script.sha
    assert words(script.text) - defined(script.text) <= _BUILT_IN
    assert max(map(len, (FOLDER / f"{name}.lua").read_text().splitlines())) <= 120


@pytest.mark.parametrize("name", CALLED)
def test_a_script_uses_all_that_its_header_names(name: str) -> None:
    script = Script(name)
    assert {*script.keys, *script.arguments} <= words(script.body)
    assert not {"KEYS", "ARGV"} & words(script.body)
    for shared, text in script.shared.items():
        there = {match[1] or match[2] for match in re.finditer(r"(?m)^local (?:function (\w+)|(\w+))", text)}
        assert there & words(script.text.replace(text, "")), f"{shared} is not needed"


def test_every_script_is_called_from_somewhere() -> None:
    texts = [file.read_text() for file in SERVICES.rglob("*.py")]
    called = {name for text in texts for name in re.findall(r'Script\(\s*"([\w/]+)"', text)}
    assert called == set(CALLED)
    shared = {f"shared/{name}" for one in CALLED for name in Script(one).shared}
    assert shared == set(NAMES) - set(CALLED)


def test_every_key_that_a_script_names_is_declared() -> None:
    known = {key.pattern.partition("*")[0] for keys in declared_keys().values() for key in keys}
    known.add("sluice:signals:told:")  # a channel, which holds nothing
    for name in NAMES:
        named = set(re.findall(r"'(sluice:[^']*)'", Script(name).body))
        assert named <= known, f"{name}: {named - known} is declared by no module's KEYS"


async def test_names_that_are_not_the_headers_are_refused_before_anything_is_sent(redis: AsyncRedis) -> None:
    script = Script("events/rejudge")
    with pytest.raises(TypeError, match=r"events/rejudge .* missing \['waiting'\], unknown \['wanted'\]"):
        script(redis, queue="q", rule="r", wanted=[])
    with pytest.raises(TypeError, match="wants 3 values in each row of waiting"):
        script(redis, queue="q", rule="r", waiting=[("1-1", "2-2")])
    assert await redis.keys() == []


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scripts, "FOLDER", tmp_path)
    (tmp_path / "shared").mkdir()
    for name in ("lists", "expect"):
        (tmp_path / "shared" / f"{name}.lua").write_bytes((FOLDER / "shared" / f"{name}.lua").read_bytes())
    return tmp_path


HEADER = """\
-- Returns what it is given.
-- USES: expect
-- KEYS: first, second
-- ARGV: single, rows[left, right],
--   values[value], others[other]
"""
BODY = """
local found = {first, second, single}
for left, right in rows() do found[#found + 1] = left .. '=' .. right end
for value in values() do found[#found + 1] = value end
for other in others() do found[#found + 1] = other end
for left in rows() do found[#found + 1] = left end
return found
"""


async def test_keys_arguments_and_lists_arrive_under_their_names(redis: AsyncRedis, own: Path) -> None:
    (own / "one.lua").write_text(HEADER + BODY)
    script = Script("one")
    given = {
        "second": "k2",
        "first": "k1",
        "single": 7,
        "others": [],
        "rows": [("a", b"\xff"), ("", "1")],
        "values": "xy",
    }
    wanted = [b"k1", b"k2", b"7", b"a=\xff", b"=1", b"x", b"y", b"a", b""]
    assert await script(redis, **given) == wanted
    await redis.script_flush()
    assert await script(redis, **given) == wanted
    await redis.script_flush()
    assert await run_all(redis, script, [given, {**given, "rows": []}]) == [wanted, [*wanted[:3], b"x", b"y"]]


async def test_a_script_says_whether_it_runs_when_redis_is_full(redis: AsyncRedis, own: Path) -> None:
    (own / "plain.lua").write_text("-- Sets.\n-- KEYS: key\nreturn redis.call('SET', key, 'x')\n")
    (own / "full.lua").write_text(EVEN_WHEN_FULL + (own / "plain.lua").read_text())
    assert Script("full").text == Script("plain", flags=EVEN_WHEN_FULL).text
    await redis.config_set("maxmemory", 1)
    try:
        assert await Script("full")(redis, key="test:k") == b"OK"
        with pytest.raises(Exception, match="maxmemory"):
            await Script("plain")(redis, key="test:k")
    finally:
        await redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "header",
    [
        "return 1\n",
        "-- Does.\n-- ARGV: a b\n",
        "-- Does.\n-- ARGV: a, a\n",
        "-- Does.\n-- ARGV: a[b], c\n",
        "-- Does.\n-- KEYS: a\n-- ARGV: a\n",
        "-- Does.\n-- KEYS: a[b]\n",
        "-- Does.\n-- ARGV: a[b\n",
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(own: Path, header: str) -> None:
    (own / "bad.lua").write_text(header)
    with pytest.raises(ValueError, match=r"bad\.lua"):
        Script("bad")
