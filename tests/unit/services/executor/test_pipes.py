"""Messages on a pipe arrive whole, and an empty pipe has not ended."""

import os
from datetime import UTC, datetime

from services.executor.messages import NotClaimed, RunClaimed, RunFinished
from services.executor.pipes import PipeLines, to_line, write

NOW = datetime(2026, 11, 30, 10, 0, 15, 123456, tzinfo=UTC)


def test_messages_arrive_whole_however_they_are_cut():
    read, out = os.pipe()
    os.set_blocking(read, False)
    lines = PipeLines(read)
    claimed, gone = RunClaimed(1.0, NOW), NotClaimed("gone")
    line = to_line(claimed)
    os.write(out, line[:10])
    assert lines.read() == []
    os.write(out, line[10:] + to_line(gone)[:5])
    assert lines.read() == [claimed]
    os.write(out, to_line(gone)[5:])
    write(out, RunFinished())
    assert lines.read() == [gone, RunFinished()]
    assert not lines.ended
    os.close(out)
    assert lines.read() == []
    assert lines.ended
    os.close(read)


def test_nothing_there_is_not_the_end():
    read, out = os.pipe()
    os.set_blocking(read, False)
    lines = PipeLines(read)
    assert lines.read() == []
    assert not lines.ended
    os.close(read)
    os.close(out)
