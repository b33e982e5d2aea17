"""What the line of progress says of the workers of a cluster. Work on a real one: test_ray.py."""

from types import SimpleNamespace

import pytest

from pipeline.core import cluster
from pipeline.core.cluster import Crew, Member, Size


class Kind:
    """What a worker would be made of."""


@pytest.fixture
def crew(monkeypatch):
    monkeypatch.setattr(cluster.time, "monotonic", lambda: 100.0)
    ray = SimpleNamespace(remote=lambda kind: SimpleNamespace(options=lambda **more: kind))
    return Crew(ray, Kind, (), Size(1, 0), 3)


def worker(name: str, done: float, since: float = 90.0, is_ready: bool = True) -> Member:
    return Member(None, None, name, is_ready, done=done, since=since)


def test_the_slowest_worker_is_named_where_it_is_a_fifth_slower_than_the_middle(crew):
    crew.members = [worker("a", 1000), worker("b", 790), worker("c", 1010)]
    assert crew.in_words() == "3 workers, slowest on b: 79.0/s, median 100.0/s"


def test_workers_that_differ_by_less_are_not_named(crew):
    crew.members = [worker("a", 1000), worker("b", 810), worker("c", 1010)]
    assert crew.in_words() == "3 workers"


def test_a_worker_that_came_late_is_measured_from_when_it_was_ready(crew):
    crew.members = [worker("a", 1000), worker("late", 500, since=95.0), worker("c", 1010)]
    assert crew.in_words() == "3 workers"


def test_workers_without_a_result_yet_say_nothing_about_speed(crew):
    crew.members = [worker("a", 1000), worker("new", 0), worker("loads", 0, is_ready=False)]
    assert crew.in_words() == "2 workers"
    crew.members = []
    assert crew.in_words() == "0 workers"
