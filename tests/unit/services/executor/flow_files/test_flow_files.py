import os

import pytest

from services.executor.flow_files.flow_files import FlowFiles
from services.executor.messages import FlowSource, ImportFindings


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "job.py"
    path.write_text("one")
    return path


def found(file, problem=None, libraries=(), seconds=0.0):
    return ImportFindings(source(file), problem, (str(file),), tuple(libraries), seconds)


def source(file):
    return FlowSource(str(file.parent), f"{file.name}:main")


def test_a_new_source_is_probed_once(file):
    files = FlowFiles()
    files.set_sources({source(file)})
    assert files.to_probe() == (source(file),)
    assert files.to_probe() == ()


def test_a_file_that_was_saved_is_probed_again(file):
    files = FlowFiles()
    files.set_sources({source(file)})
    files.note(found(file))
    assert files.to_probe() == ()
    os.utime(file, ns=(1, 1))
    assert len(files.to_probe()) == 1


def test_a_problem_is_news_once_and_so_is_its_end(file):
    files = FlowFiles()
    files.set_sources({source(file)})
    assert files.note(found(file, "line 3")) == "line 3"
    assert files.note(found(file, "line 3")) is None
    assert list(files.problems.values()) == ["line 3"]
    assert files.note(found(file)) == ""
    assert files.note(found(file)) is None
    assert files.problems == {}


def test_the_problem_of_a_source_that_is_no_more_is_forgotten(file):
    files = FlowFiles()
    files.set_sources({source(file)})
    files.note(found(file, "line 3"))
    files.set_sources(set())
    assert files.problems == {}


def test_libraries_are_worth_warming_when_they_are_cold_and_slow(file):
    files = FlowFiles()
    files.set_sources({source(file)})
    files.note(found(file, libraries=["pandas"], seconds=1.0))
    assert files.worth_warming(frozenset())
    assert not files.worth_warming({"pandas"})
    files.note(found(file, libraries=["csv"], seconds=0.01))
    assert not files.worth_warming(frozenset())
