import os

from services.executor.pipes import PipeLines, write


def test_messages_arrive_whole_however_they_are_cut():
    read, out = os.pipe()
    os.set_blocking(read, False)
    lines = PipeLines(read)
    os.write(out, b'{"step": "cl')
    assert lines.read() == []
    os.write(out, b'aimed"}\n{"step"')
    assert lines.read() == [{"step": "claimed"}]
    os.write(out, b': "started"}\n')
    write(out, {"step": "finished"})
    assert lines.read() == [{"step": "started"}, {"step": "finished"}]
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
