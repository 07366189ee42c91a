import signal

import pytest

from services.executor.process_exits import describe_exit, oom_kill_count


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "killed from outside"),
        (signal.SIGSEGV, "segmentation fault"),
        (signal.SIGABRT, "aborted itself"),
        (signal.SIGUSR1, "SIGUSR1"),
        (signal.SIGRTMIN + 5, f"signal {signal.SIGRTMIN + 5}"),
    ],
)
def test_a_deadly_signal_is_told_in_words(number, words):
    assert words in describe_exit(int(number))


def test_a_kill_while_memory_ran_out_is_told_as_that():
    assert "memory ran out" in describe_exit(int(signal.SIGKILL), oom_kills=1)
    assert "OOM" not in describe_exit(int(signal.SIGKILL))


@pytest.mark.parametrize("code", [0, 3, 255])
def test_an_exit_code_is_told(code):
    assert f"exit code {code} " in describe_exit(code << 8)


def test_the_count_of_memory_kills_is_a_number_wherever_it_is_asked():
    assert oom_kill_count() >= 0
