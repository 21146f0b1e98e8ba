"""A picture kept by a watch, over a wire that fails in ways a real API server cannot be told to."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest

from autoscaler.errors import ClusterRefused, ClusterUnavailable
from autoscaler.kube.client import JsonObject, KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.watch import WatchedCollection, WatchTiming
from tests.support.http_answers import Answer, AnsweringServer, Asked, Stream, answering, seconds_since
from tests.support.kube_api import wait_until
from tests.support.kubeconfig import a_kubeconfig

PODS = "/api/v1/pods"
QUICK = WatchTiming(
    read_timeout_seconds=20.0, first_retry_seconds=0.05, longest_retry_seconds=0.2, absent_retry_seconds=0.2
)
SLOW = replace(QUICK, first_retry_seconds=60.0, longest_retry_seconds=60.0)
PATIENCE_SECONDS = 20.0


def an_item(name: str, node: str, version: int = 1) -> JsonObject:
    return {
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": str(version)},
        "spec": {"nodeName": node},
    }


def a_list(version: int, *items: JsonObject, following: str = "") -> Answer:
    metadata = {"resourceVersion": str(version), "continue": following}
    return Answer(body=orjson.dumps({"metadata": metadata, "items": items}))


def an_event(kind: str, item: JsonObject) -> bytes:
    return orjson.dumps({"type": kind, "object": item}) + b"\n"


def a_bookmark(version: int) -> bytes:
    return an_event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def a_watch(*chunks: bytes, is_cut: bool = False, silent_seconds: float = 0.0) -> Answer:
    return Answer(stream=Stream(chunks, is_cut, silent_seconds))


def a_status(code: int, message: str = "because") -> JsonObject:
    return {"kind": "Status", "code": code, "message": message}


SILENCE = a_watch(silent_seconds=30)


@dataclass
class Script:
    """What the server answers to each list and each watch in turn; the last answer of either is repeated.

    With a number, watches after the first so many are answered only when the test says `go_on`.
    """

    lists: Sequence[Answer]
    watches: Sequence[Answer] = (SILENCE,)
    free_watches: int | None = None
    listed: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.go_on = threading.Event()

    def __call__(self, asked: Asked, number: int) -> Answer:
        with self._lock:
            self.asked_at.append(time.monotonic())
            answers, paths = (self.watches, self.watched) if "watch=true" in asked.path else (self.lists, self.listed)
            paths.append(asked.path)
            chosen = answers[min(len(paths), len(answers)) - 1]
            is_held = paths is self.watched and self.free_watches is not None and len(paths) > self.free_watches
        if is_held:
            self.go_on.wait(PATIENCE_SECONDS)
        return chosen


def node_of(item: JsonObject) -> str | None:
    """Kept of a pod: its node, and nothing where it has none."""
    return item["spec"]["nodeName"] or None


@contextmanager
def following(
    folder: Path,
    script: Script,
    timing: WatchTiming = QUICK,
    reduce: Callable[[JsonObject], str | None] = node_of,
    selector: str = "",
) -> Iterator[WatchedCollection[str]]:
    """A picture kept from a server that answers by the script."""
    with answering(script) as server:
        picture = a_picture(folder, server, timing, reduce, selector)
        picture.start()
        yield picture
        picture.stop()


def a_picture(
    folder: Path,
    server: AnsweringServer,
    timing: WatchTiming = QUICK,
    reduce: Callable[[JsonObject], str | None] = node_of,
    selector: str = "",
) -> WatchedCollection[str]:
    client = KubeClient.connect(a_kubeconfig(folder, server.url))
    return WatchedCollection(
        client, PODS, reduce, clock=seconds_since_boot, random=random.Random(1), selector=selector, timing=timing
    )


def shows(picture: WatchedCollection[str], expected: dict[str, str]) -> None:
    """Waits until the picture is that."""
    wait_until(lambda: picture.snapshot() == expected, PATIENCE_SECONDS, f"{expected}; problem {picture.problem}")


def test_a_picture_whose_reduction_has_changed_is_listed_again_at_once(tmp_path: Path) -> None:
    """The watch that is open ends; what was kept by the old rule is replaced."""
    nodes = ["shown"]

    def shown(item: JsonObject) -> str | None:
        return nodes[0] if item["spec"]["nodeName"] else None

    script = Script(lists=(a_list(7, an_item("a", "n1")),))
    with following(tmp_path, script, reduce=shown) as picture:
        shows(picture, {"shop/a": "shown"})
        nodes[0] = "shown in full"
        picture.list_again()
        shows(picture, {"shop/a": "shown in full"})

        assert len(script.listed) == 2
        assert picture.problem is None


def test_a_list_and_then_events_make_the_picture(tmp_path: Path) -> None:
    """Page by page, reduced; the watch begins where the list was, with bookmarks, and what it says is followed."""
    script = Script(
        lists=(
            a_list(7, an_item("a", "n1"), an_item("unplaced", ""), following="more"),
            a_list(7, an_item("b", "n1"), an_item("c", "n2")),
        ),
        watches=(
            a_watch(
                an_event("ADDED", an_item("d", "n3", 8)),
                # Two events in one chunk, and one event in two.
                an_event("MODIFIED", an_item("a", "n2", 9)) + an_event("DELETED", an_item("b", "n1", 10)),
                an_event("MODIFIED", an_item("c", "", 11))[:20],
                an_event("MODIFIED", an_item("c", "", 11))[20:],
                silent_seconds=30,
            ),
        ),
    )

    with following(tmp_path, script, selector="app=x") as picture:
        shows(picture, {"shop/a": "n2", "shop/d": "n3"})

    assert [path.partition("?")[2] for path in script.listed] == [
        "labelSelector=app%3Dx&limit=500",
        "labelSelector=app%3Dx&limit=500&continue=more",
    ]
    (watched,) = script.watched
    assert "resourceVersion=7&" in watched
    assert "allowWatchBookmarks=true" in watched
    assert "labelSelector=app%3Dx" in watched
    assert 36 <= int(watched.partition("timeoutSeconds=")[2].partition("&")[0]) <= 45


def test_a_snapshot_stays_as_it_was_taken(tmp_path: Path) -> None:
    """It cannot be changed, the picture's changes do not show in it, and while there are none it is not copied."""
    script = Script(
        lists=(a_list(1, an_item("a", "n1")),),
        watches=(
            a_watch(a_bookmark(2), an_event("MODIFIED", an_item("a", "n1", 3))),
            a_watch(an_event("ADDED", an_item("b", "n1", 4)), silent_seconds=30),
        ),
        free_watches=1,
    )

    with following(tmp_path, script) as picture:
        assert picture.wait_until_synced(PATIENCE_SECONDS)
        first = picture.snapshot()
        wait_until(lambda: len(script.watched) == 2, PATIENCE_SECONDS, "the second watch")
        second = picture.snapshot()
        script.go_on.set()
        shows(picture, {"shop/a": "n1", "shop/b": "n1"})

    assert first is second
    assert first == {"shop/a": "n1"}
    with pytest.raises(TypeError):
        first["shop/a"] = "n2"  # type: ignore[index]


def test_before_the_first_list_nothing_is_known(tmp_path: Path) -> None:
    """Not synced, infinitely old; the wait for it ends at its time-out."""
    with answering(Answer(503)) as server:
        picture = a_picture(tmp_path, server)

        assert not picture.is_synced
        assert not picture.wait_until_synced(0.01)
        assert picture.age_seconds() == float("inf")
        assert picture.snapshot() == {}


def test_a_watch_that_ended_is_gone_on_with_where_it_was(tmp_path: Path) -> None:
    """From the last event or bookmark, without another list, and without a problem."""
    script = Script(
        lists=(a_list(1),),
        watches=(
            a_watch(an_event("ADDED", an_item("a", "n1", 5))),
            a_watch(a_bookmark(9)),
            a_watch(an_event("ADDED", an_item("b", "n1", 12)), silent_seconds=30),
        ),
    )

    with following(tmp_path, script) as picture:
        shows(picture, {"shop/a": "n1", "shop/b": "n1"})
        assert picture.problem is None

    assert len(script.listed) == 1
    assert ["resourceVersion=1&" in script.watched[0], "=5&" in script.watched[1], "=9&" in script.watched[2]] == [
        True
    ] * 3


@pytest.mark.parametrize(
    "expired",
    [Answer(410, orjson.dumps(a_status(410))), a_watch(an_event("ERROR", a_status(410)))],
    ids=["status", "event"],
)
def test_an_expired_history_is_listed_again(tmp_path: Path, expired: Answer) -> None:
    """What was deleted meanwhile has vanished, without an event for it; this is no problem and costs no wait."""
    script = Script(
        lists=(a_list(1, an_item("a", "n1"), an_item("b", "n1")), a_list(50, an_item("b", "n2"))),
        watches=(expired, SILENCE),
    )

    with following(tmp_path, script, timing=SLOW) as picture:
        shows(picture, {"shop/b": "n2"})
        wait_until(lambda: len(script.watched) == 2, PATIENCE_SECONDS, "the second watch")
        assert picture.problem is None

    assert "resourceVersion=50&" in script.watched[1]


def test_a_history_that_expires_at_once_each_time_is_not_listed_without_pause(tmp_path: Path) -> None:
    """The second time in a row is a problem, and waited for longer and longer."""
    script = Script(lists=(a_list(1),), watches=(a_watch(an_event("ERROR", a_status(410, "too old"))),))

    with following(tmp_path, script, timing=SLOW) as picture:
        problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the problem")
        time.sleep(0.3)

    assert "too old" in str(problem)
    assert (len(script.listed), len(script.watched)) == (2, 2)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (a_watch(a_bookmark(4), is_cut=True), "did not answer WATCH /api/v1/pods"),
        (a_watch(a_bookmark(4), b'{"type": "ADDED", "obj', is_cut=True), "did not answer WATCH"),
        (a_watch(a_bookmark(4), b'{"type": "ADDED", "obj'), "not JSON"),
        (a_watch(a_bookmark(4), b"<html>Gateway</html>\n"), "not JSON"),
        (a_watch(a_bookmark(4), b'["ADDED"]\n'), "with list"),
        (a_watch(a_bookmark(4), b'{"kind": "PodList", "items": []}\n'), "what is no event"),
        (a_watch(a_bookmark(4), b'{"type": "ADDED", "object": {"metadata": {}}}\n'), "what is no event"),
        (a_watch(a_bookmark(4), an_event("ERROR", a_status(500, "etcd is gone"))), "etcd is gone"),
    ],
    ids=["cut", "cut in an event", "ended in an event", "html", "no object", "a list", "no version", "error event"],
)
def test_a_watch_that_breaks_is_said_and_gone_on_with(tmp_path: Path, broken: Answer, said: str) -> None:
    """From the last thing that was whole; nothing is listed again, and the picture stays."""
    script = Script(
        lists=(a_list(1, an_item("a", "n1")),),
        watches=(broken, a_watch(an_event("ADDED", an_item("b", "n1", 5)), silent_seconds=30)),
        free_watches=1,
    )

    with following(tmp_path, script) as picture:
        problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the problem")
        assert picture.snapshot() == {"shop/a": "n1"}
        script.go_on.set()
        shows(picture, {"shop/a": "n1", "shop/b": "n1"})
        assert picture.problem is None

    assert said in str(problem)
    assert len(script.listed) == 1
    assert "resourceVersion=4&" in script.watched[1]


def test_a_connection_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    """A half-open connection looks like a quiet cluster; only an end that stays out tells. The age says so first."""
    script = Script(
        lists=(a_list(1),),
        watches=(SILENCE, a_watch(an_event("ADDED", an_item("a", "n1", 2)), silent_seconds=30)),
    )
    timing = replace(QUICK, read_timeout_seconds=0.8)

    with following(tmp_path, script, timing=timing) as picture:
        assert picture.wait_until_synced(PATIENCE_SECONDS)
        wait_until(lambda: picture.age_seconds() > 0.5, PATIENCE_SECONDS, "the picture to age")
        shows(picture, {"shop/a": "n1"})
        assert picture.age_seconds() < 0.5 + 20

    assert len(script.listed) == 1


def test_a_list_that_expires_half_way_is_begun_anew(tmp_path: Path) -> None:
    """No picture is ever made of a part."""
    script = Script(
        lists=(
            a_list(1, an_item("half", "n1"), following="more"),
            Answer(410, orjson.dumps(a_status(410))),
            a_list(9, an_item("a", "n1"), following="more"),
            a_list(9, an_item("b", "n1")),
        ),
    )
    pictures = []

    with following(tmp_path, script) as picture:
        while not picture.wait_until_synced(0.001):
            pictures.append(picture.snapshot())
        shows(picture, whole := {"shop/a": "n1", "shop/b": "n1"})

    assert all(seen in ({}, whole) for seen in pictures)
    assert "continue" not in script.listed[2]


def test_a_kind_that_is_not_there_is_an_empty_picture(tmp_path: Path) -> None:
    """Known, current and without a problem; asked for again now and then, and followed once it is there."""
    script = Script(lists=(Answer(404, orjson.dumps(a_status(404))),) * 2 + (a_list(3, an_item("a", "n1")),))

    with following(tmp_path, script) as picture:
        assert picture.wait_until_synced(PATIENCE_SECONDS)
        assert (picture.is_absent, picture.problem, dict(picture.snapshot())) == (True, None, {})
        assert picture.age_seconds() < PATIENCE_SECONDS
        shows(picture, {"shop/a": "n1"})
        assert not picture.is_absent


def test_a_kind_that_is_taken_away_leaves_nothing_behind(tmp_path: Path) -> None:
    """The objects go with their kind."""
    script = Script(lists=(a_list(1, an_item("a", "n1")),), watches=(a_watch(a_bookmark(2)), Answer(404), Answer(404)))

    with following(tmp_path, script, timing=replace(QUICK, absent_retry_seconds=60.0)) as picture:
        wait_until(lambda: picture.is_absent, PATIENCE_SECONDS, "the kind to be gone")
        assert picture.snapshot() == {}


def test_a_user_who_may_not_watch_is_told_the_rule(tmp_path: Path) -> None:
    """The list was allowed, so the picture is there; it ages, and the problem says what to add."""
    script = Script(lists=(a_list(1, an_item("a", "n1")),), watches=(Answer(403, orjson.dumps(a_status(403))),))

    with following(tmp_path, script) as picture:
        problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the problem")
        assert picture.snapshot() == {"shop/a": "n1"}

    assert isinstance(problem, ClusterRefused)
    assert 'resources: ["pods"], verbs: ["watch"]' in str(problem)


def test_retries_wait_longer_and_longer_up_to_a_limit(tmp_path: Path) -> None:
    """Doubled each time, half of it by chance."""
    script = Script(lists=(Answer(503),))
    timing = replace(QUICK, first_retry_seconds=0.1, longest_retry_seconds=0.8)

    with following(tmp_path, script, timing=timing):
        wait_until(lambda: len(script.asked_at) >= 6, PATIENCE_SECONDS, "six tries")

    waits = [after - before for before, after in zip(script.asked_at, script.asked_at[1:], strict=False)]
    # Never sooner; how much later depends on how busy the machine is.
    for wait, at_least in zip(waits, (0.05, 0.1, 0.2, 0.4, 0.4), strict=False):
        assert wait > at_least * 0.95


def test_everything_is_listed_again_now_and_then(tmp_path: Path) -> None:
    """Even while events come in: an object whose deletion got lost on the way vanishes."""
    script = Script(
        lists=(a_list(1, an_item("a", "n1"), an_item("ghost", "n1")), a_list(9, an_item("a", "n1"))),
        watches=(a_watch(a_bookmark(2)), a_watch(a_bookmark(3))),
    )

    with following(tmp_path, script, timing=replace(QUICK, resync_seconds=0.5)) as picture:
        shows(picture, {"shop/a": "n1"})

    assert all("timeoutSeconds=1&" in path for path in script.watched)


def test_a_server_that_ends_each_watch_at_once_is_a_problem(tmp_path: Path) -> None:
    """As a proxy does that does not let streams through: the picture is never current, and nobody spins."""
    script = Script(lists=(a_list(1),), watches=(a_watch(),))

    with following(tmp_path, script, timing=SLOW) as picture:
        problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the problem")

    assert "is a proxy in between" in str(problem)
    assert len(script.watched) == 1


def test_a_reduction_that_breaks_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    """The picture stands still and says so; it goes on once the object is gone."""
    broken = an_item("b", "n1", 5) | {"spec": {}}
    script = Script(
        lists=(a_list(1, an_item("a", "n1")), a_list(9)),
        watches=(a_watch(an_event("ADDED", broken)), a_watch(an_event("ERROR", a_status(410))), SILENCE),
        free_watches=1,
    )

    with following(tmp_path, script) as picture:
        problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the problem")
        assert picture.snapshot() == {"shop/a": "n1"}
        script.go_on.set()
        shows(picture, {})

    assert isinstance(problem, ClusterUnavailable)
    assert "KeyError('nodeName')" in str(problem)


def test_an_open_watch_is_stopped_at_once(tmp_path: Path) -> None:
    """However silent it is; the picture stays."""
    script = Script(lists=(a_list(1, an_item("a", "n1")),))
    with following(tmp_path, script) as picture:
        wait_until(lambda: len(script.watched) == 1 and picture.is_synced, PATIENCE_SECONDS, "the watch")
        time.sleep(0.2)
        started = time.monotonic()

        picture.stop()

        assert seconds_since(started) < 1.5  # a thread that is not at its end by then is given up after 2
        assert picture.snapshot() == {"shop/a": "n1"}
    assert f"watch {PODS}" not in [thread.name for thread in threading.enumerate()]
