"""Runs: what becomes of cases, what is kept of a run that is killed, and what isn't performed again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onnxport_zoo import content, isolation, running
from onnxport_zoo.processes import seconds_of_waiting
from onnxport_zoo.results import Results
from onnxport_zoo.running import Summary
from toys import PASSING
from zoo_support import BAD, EXPECTED, environment, performed, statuses, write_zoo


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, float]:
    """Twenty cases, of which one crashes, one hangs, one eats memory and one is wrong."""
    folder = tmp_path_factory.mktemp("twenty")
    zoo = write_zoo(folder, [*PASSING, *BAD])
    start = time.perf_counter()
    summary = performed(zoo, folder / "a", cache=folder / "cache")
    return folder, summary, time.perf_counter() - start


@pytest.mark.slow
def test_the_table_says_what_became_of_each_case(twenty: tuple[Path, Summary, float]) -> None:
    _, summary, _ = twenty
    assert len(summary.records) == 20 and summary.performed == 20
    expected = {record["case"]: EXPECTED.get(record["case"], "passed") for record in summary.records}
    assert statuses(summary) == expected
    for record in summary.records:
        if record["status"] == "passed":
            assert len(record["shapes"]) >= 2
            stages = ["model", "capture", "translate", "save", "load", "verify"]
            assert list(record["stages"])[:6] == stages and all(seconds >= 0 for seconds in record["stages"].values())
            assert record["nodes"] > 0 and record["bytes"] > 0
    by_name = {record["case"].partition(":")[2]: record for record in summary.records}
    latency = by_name["relu"]["latency"]
    assert latency["onnxruntime"]["median"] > 0 and latency["torch"]["median"] > 0
    assert list(by_name["relu"]["stages"])[6:] == ["latency"]
    assert "SIGABRT" in by_name["crash"]["message"] and "in crash" in by_name["crash"]["output"]
    assert by_name["hang"]["output"] == "waiting for nobody"
    assert by_name["eat"]["peak"] > 1400 * 2**20
    assert by_name["wrong"]["stage"] == "verify" and "differ" in by_name["wrong"]["message"]


@pytest.mark.slow
def test_a_second_run_performs_nothing_and_takes_a_tenth(twenty: tuple[Path, Summary, float]) -> None:
    folder, first, seconds = twenty
    start = time.perf_counter()
    other = performed(folder / "zoo.toml", folder / "b", cache=folder / "cache")
    same = performed(folder / "zoo.toml", folder / "a", cache=None)
    assert time.perf_counter() - start < seconds / 10
    assert (other.cached, other.performed) == (20, 0) and (same.kept, same.performed) == (20, 0)
    assert statuses(other) == statuses(same) == statuses(first)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(twenty: tuple[Path, Summary, float], tmp_path: Path) -> None:
    names = ["wrong", "relu", "exp", "crash"]
    zoo = write_zoo(tmp_path, names)
    results = tmp_path / "out" / "results.jsonl"
    command = [sys.executable, "-m", "onnxport_zoo", "run", str(zoo), "-o", str(tmp_path / "out"), "-j", "1"]
    run = subprocess.Popen([*command, "--no-cache"], env=environment(), stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    assert "wrong" in run.stderr.readline()  # the first case has ended, and the second one goes on
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stderr.close()
    ended = len(results.read_text().splitlines())
    assert ended < len(names)
    with results.open("a") as file:
        file.write('{"case": "toys.py:relu", "sta')  # as a kill leaves it
    resumed = performed(zoo, tmp_path / "out")
    assert resumed.kept == ended and resumed.performed == len(names) - ended
    whole = statuses(twenty[1])
    assert statuses(resumed) == {name: whole[name] for name in statuses(resumed)} and len(resumed.records) == 4


@pytest.mark.slow
def test_a_process_killed_from_outside_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is in the source, since the server of processes has the variables of its start."""
    zoo = write_zoo(tmp_path, ["killed_once", "killed_always", "no_model", "refused"])
    source = tmp_path / "toys.py"
    source.write_text(source.read_text().replace('os.environ["ZOO_MARK"]', repr(str(tmp_path / "mark"))))
    summary = performed(zoo, tmp_path / "out")
    once, always, no_model, refused = summary.records
    assert (once["status"], once["attempts"]) == ("passed", 2)
    assert (always["status"], always["attempts"]) == ("crashed", 3) and "SIGKILL" in always["message"]
    assert (no_model["status"], no_model["stage"]) == ("failed", "model") and "no weights here" in no_model["message"]
    assert (refused["status"], refused["stage"]) == ("refused", "translate")
    assert refused["operators_refused"] == ["zootest::strange"]


@pytest.mark.slow
def test_equal_bytes_are_not_verified_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = write_zoo(tmp_path, ["relu", "wrong"])
    first = performed(zoo, tmp_path / "a", cache=tmp_path / "cache")
    monkeypatch.setattr(content, "versions", lambda: {"onnxport": "another"})  # it writes the same bytes
    second = performed(zoo, tmp_path / "b", cache=tmp_path / "cache")
    assert second.performed == 2
    assert [record.get("verified") for record in first.records] == ["now", "now"]
    assert [record["verified"] for record in second.records] == ["before", "now"]  # what is wrong is told again
    assert statuses(first) == statuses(second)
    assert [record["digest"] for record in first.records] == [record["digest"] for record in second.records]
    assert second.records[0]["shapes"] == first.records[0]["shapes"]


def test_what_changes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = write_zoo(tmp_path, ["relu"])

    def key(extra: str = "") -> str:
        zoo.write_text(f"[[cases]]\nmodel = 'toys.py:relu'\n{extra}")
        (case,) = running.read_zoo(zoo)
        content._source.cache_clear()
        return content.key_of(case)

    (tmp_path / "weights.bin").write_bytes(b"1")
    first = key()
    assert key() == first == key("seconds = 7\nmemory = '1 GiB'")  # limits aren't part of it
    others = [key(text) for text in ("opsets = [18]", "dtypes = ['float16']", "options = {optimize = false}")]
    others += [key(text) for text in ("verify = {atol = 0.1}", "latency = false", "depends = ['*.bin']")]
    (tmp_path / "weights.bin").write_bytes(b"2")
    others.append(key("depends = ['*.bin']"))
    with (tmp_path / "toys.py").open("a") as file:
        file.write("# another line\n")
    others.append(key())
    monkeypatch.setattr(content, "versions", lambda: {"onnxport": "another"})
    others.append(key())
    assert len({first, *others}) == len(others) + 1


def test_limits_count_for_what_ran_into_them(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path, ["hang"])
    (case,) = running.read_zoo(zoo)
    key = content.key_of(case)
    record = {"case": case.name, "key": key, "status": "timeout", "limits": {"seconds": 4.0, "memory": case.memory}}
    assert running._usable(record, case, key, ())
    assert not running._usable(record, case, key, ("timeout",))
    assert not running._usable({**record, "limits": {"seconds": 3.0, "memory": case.memory}}, case, key, ())
    assert not running._usable({**record, "machine_failed": True}, case, key, ())
    assert not running._usable({**record, "key": "another"}, case, key, ())


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append({"case": "a", "status": "passed", "max_abs": float("nan")})
    results.append({"case": "a", "status": "wrong"})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"case": "b"')
    again = Results(tmp_path)
    assert again.records == {"a": {"case": "a", "status": "wrong"}}
    again.append({"case": "b", "status": "passed"})
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["a", "a", "b"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system doesn't tell how long threads waited")
def test_waiting_for_a_processor_is_no_time_of_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = write_zoo(tmp_path, ["relu"])
    with (tmp_path / "toys.py").open("a") as file:
        file.write("\n\ndef sleepy():\n    time.sleep(2)\n    return toy('relu')\n")
    zoo.write_text("[[cases]]\nmodel = 'toys.py:sleepy'\nseconds = 1\nlatency = false\n")
    assert performed(zoo, tmp_path / "a").records[0]["status"] == "timeout"
    monkeypatch.setattr(isolation, "seconds_of_waiting", lambda pid: 120.0)
    (record,) = performed(zoo, tmp_path / "b").records
    assert record["status"] == "passed" and record["seconds"] > 2


def test_a_thread_that_waits_is_seen() -> None:
    """Two processes on one processor wait for each other."""
    code = "import os, time\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end and not all(seconds_of_waiting(each.pid) > 0.05 for each in both):
            time.sleep(0.05)
        if Path("/proc/self/schedstat").exists():
            assert all(seconds_of_waiting(each.pid) > 0.05 for each in both)
    finally:
        for each in both:
            each.kill()
            each.wait()
    assert seconds_of_waiting(both[0].pid) == 0.0


@pytest.mark.grid
def test_the_engine_takes_less_than_a_twentieth(tmp_path: Path) -> None:
    names = ("relu", "sigmoid", "tanh", "exp")
    labels = (f"label = '{number}'" for number in range(25))
    tables = [f"[[cases]]\nmodels = {[f'toys.py:{name}' for name in names]}\n{label}\n" for label in labels]
    zoo = write_zoo(tmp_path, [], "".join(tables))
    performed(write_zoo(tmp_path / "first", ["relu"]), tmp_path / "warm")  # the server has started
    start = time.perf_counter()
    summary = performed(zoo, tmp_path / "out", cache=tmp_path / "cache")
    seconds = time.perf_counter() - start
    work = sum(sum(record["stages"].values()) for record in summary.records)
    assert len(summary.records) == summary.performed == 100
    assert seconds - work < 0.05 * seconds, f"{seconds:.1f} s, of which the cases took {work:.1f} s"
    start = time.perf_counter()
    assert performed(zoo, tmp_path / "again", cache=tmp_path / "cache").cached == 100
    assert time.perf_counter() - start < 0.1 * seconds
