"""Sources as the project file describes them, and what cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from config.sources import DEFAULT_TRIM_SECONDS, EVENTS, FilesSource, HookSource, HttpSources, RedisSource, Sources
from events.event import RESUME

HOOK = {"verify": "github", "secret_env": "SECRET", "type": "github"}


def refused(kind: type[Any], **keys: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(keys)
    return str(caught.value)


def redis(**keys: Any) -> RedisSource:
    return RedisSource.model_validate(keys)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"include": []}, "no file would ever match"),
        ({"include": ["[a"]}, "without its pair"),
        ({"done": "x", "failed": "x"}, "the same folder"),
        ({"done": "../elsewhere"}, "not a name for a folder"),
        ({"done": "."}, "not a name for a folder"),
        ({"failed": ".."}, "not a name for a folder"),
        ({"failed": ""}, "not a name for a folder"),
        ({"marker": "done"}, "`{name}`"),
        ({"marker": "{name}"}, "`{name}`"),
        ({"marker": "x/{name}.done"}, "`{name}`"),
        ({"marker": "{name}{stem}"}, "`{name}`"),
        ({"rerun": "content", "sha256": "never"}, "compares contents"),
        ({"data": {"path": "x"}}, "set by the listener itself"),
        ({"data": {"x": {"__prefect_kind": "jinja"}}}, "__prefect_kind"),
        ({"data": {"a": 1}, "template": "{a}"}, "both set a"),
        ({"template": "{a"}, "brace"),
        ({"type": ""}, "at least 1 character"),
        ({"ready": "soon"}, "auto"),
        ({"stable_seconds": 0}, "greater than 0"),
        ({"quiet_ms": -1}, "greater than or equal to 0"),
        ({"recursiv": True}, "Extra inputs"),
        ({"path": "caf\udce9"}, "not UTF-8"),
    ],
)
def test_a_watch_that_makes_no_sense_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        FilesSource(**{"path": "/in", **options})


def test_a_watched_folder_needs_only_its_path() -> None:
    source = FilesSource(path=Path("in"))
    assert (source.type, source.include, source.on_success, source.done) == (
        "sluice.file.arrived", ("*",), "archive", "done"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "name at least one of `channel`, `stream` and `list`"),
        ({"stream": "s", "pattern": True}, "`pattern` belongs to a `channel`"),
        ({"channel": "c", "trim_after_seconds": 5}, "`trim_after_seconds` belongs to a `stream`"),
        ({"channel": "c", "pop": "right"}, "`pop` belongs to a `list`"),
        ({"stream": "s", "list": "s"}, "one key cannot be a stream and a list: 's'"),
        ({"stream": "sluice:journal"}, "keys that begin with `sluice:` are Sluice's own"),
        ({"channel": "a\nb"}, "channel"),
        ({"stream": ""}, "stream"),
        ({"channel": "c", "type": "sluice.file.arrived"}, "types that begin with `sluice.` are Sluice's own"),
    ],
)
def test_a_redis_source_that_makes_no_sense_is_refused(keys: dict[str, Any], said: str) -> None:
    assert said in refused(RedisSource, **keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"secret_env": ()}, "`secret_env` names no variable"),
        ({"secret_env": "NOT-ONE"}, "secret_env"),
        ({"verify": "standard-webhooks", "id_header": "X-Id"}, "leave it out"),
        ({"type": "sluice.x"}, "Sluice's own"),
        ({"type_header": "a b"}, "type_header"),
        ({"replay_seconds": 0}, "replay_seconds"),
        ({"verify": "trust"}, "verify"),
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused(keys: dict[str, Any], said: str) -> None:
    assert said in refused(HookSource, **{**HOOK, **keys})


@pytest.mark.parametrize(
    ("keys", "delivery", "kind"),
    [
        ({"verify": "standard-webhooks"}, "webhook-id", None),
        ({"verify": "github"}, "X-GitHub-Delivery", "X-GitHub-Event"),
        ({"verify": "shared-secret"}, None, None),
        ({"verify": "shared-secret", "id_header": "X-Id", "type_header": "X-Kind"}, "X-Id", "X-Kind"),
        ({"verify": "github", "id_header": "X-Id", "type_header": "X-Kind"}, "X-Id", "X-Kind"),
    ],
)
def test_each_kind_of_webhook_has_its_headers(keys: dict[str, Any], delivery: str | None, kind: str | None) -> None:
    hook = HookSource.model_validate({**HOOK, **keys})
    assert (hook.delivery_header, hook.kind_header, hook.secret_names) == (delivery, kind, ("SECRET",))


def test_webhooks_stand_beside_the_sources_of_the_http_listener() -> None:
    sources = HttpSources.model_validate({"orders": {"type": "order"}, "hooks": {"shop": HOOK}})
    assert list(sources.named) == ["orders"]
    assert sources.hooks["shop"].type == "github"
    assert "POST /events/hooks another name" in refused(HttpSources, hooks={"type": "order"})
    assert "hooks" in refused(HttpSources, hooks={"no/name": HOOK})
    assert "colour" in refused(HttpSources, orders={"colour": "red"})


def test_events_and_signals_have_a_channel_and_a_stream_unless_others_take_them() -> None:
    found = Sources().redis_with_defaults()
    assert {(one.channel, one.stream, one.carries, one.trim_after_seconds) for one in found.values()} == {
        (EVENTS, EVENTS, "events", DEFAULT_TRIM_SECONDS),
        (RESUME, RESUME, "signals", DEFAULT_TRIM_SECONDS),
    }
    own = Sources(redis={"answers": redis(list="answers", carries="signals"), "bus": redis(stream=EVENTS)})
    assert set(own.redis_with_defaults()) == {"answers", "bus"}


def test_a_projects_name_stands_behind_the_channels_and_not_the_streams() -> None:
    found = Sources().redis_with_defaults(project="shop")[EVENTS]
    assert (found.channel, found.stream) == (f"{EVENTS}.shop", EVENTS)
