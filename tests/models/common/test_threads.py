"""The number of threads depends on CPU affinity, cgroup quotas, other load, and the user's settings."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.common import threads
from models.common.errors import InputError
from models.common.threads import Threads, available_cpus, idle_cpus, set_threads

BIN = Path(sys.executable).parent
UNTHREADED = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch) -> None:
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that pytest restores the variable after the test
        monkeypatch.delenv(name)


@pytest.fixture
def cpus(monkeypatch) -> Callable[[int], None]:
    """Sets the number of CPUs of the affinity mask."""

    def set_affinity(number: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(number)), raising=False)

    return set_affinity


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "3:cpuset:/\n2:cpu,cpuacct:/docker/1234\n1:name=systemd:/\n"
V2 = "0::/pod/worker\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        pytest.param(V2, {"pod/worker/cpu.max": "200000 100000\n"}, 2, id="version 2"),
        pytest.param(V2, {"pod/worker/cpu.max": "150000 100000\n"}, 2, id="a part of a CPU is rounded up"),
        pytest.param(V2, {"pod/worker/cpu.max": "10000 100000\n"}, 1, id="less than one CPU"),
        pytest.param(V2, {"pod/worker/cpu.max": "max 100000\n"}, 64, id="version 2 without a limit"),
        pytest.param(
            V2, {"pod/cpu.max": "300000 100000\n", "pod/worker/cpu.max": "max 100000\n"}, 3, id="limit of a parent"
        ),
        pytest.param("0::/\n", {"cpu.max": "400000 100000\n"}, 4, id="version 2 in a container"),
        pytest.param("0::/../other\n", {"cpu.max": "400000 100000\n"}, 4, id="a cgroup outside the namespace"),
        pytest.param(V2, {"unified/pod/worker/cpu.max": "500000 100000\n"}, 5, id="both versions mounted"),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/docker/1234/cpu.cfs_quota_us": "600000\n",
                "cpu,cpuacct/docker/1234/cpu.cfs_period_us": "100000\n",
            },
            6,
            id="version 1",
        ),
        pytest.param(
            V1,
            {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "50000\n"},
            5,
            id="version 1 in a container",
        ),
        pytest.param(
            V1,
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            64,
            id="version 1 without a limit",
        ),
        pytest.param(V2, {"pod/worker/cpu.max": "9900000 100000\n"}, 64, id="a quota above the number of CPUs"),
        pytest.param("", {}, 64, id="no cgroup"),
    ],
)
def test_the_available_cpus_are_the_smallest_of_affinity_and_quotas(tmp_path, cpus, cgroup, files, expected):
    cpus(64)
    write(tmp_path, {"proc/self/cgroup": cgroup} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert available_cpus(tmp_path) == expected


def test_the_affinity_limits_a_larger_quota(tmp_path, cpus):
    cpus(3)
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert available_cpus(tmp_path) == 3


def test_without_an_affinity_all_cpus_are_available(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cpus(tmp_path) == idle_cpus(tmp_path) == 7


def stat(busy: list[int]) -> str:
    """Text of /proc/stat after 100 ticks, of which CPU i was busy for busy[i]."""
    rows = [f"cpu{i} {ticks} 0 0 {90 - ticks} 10 0 0 0 0 0" for i, ticks in enumerate(busy)]
    return "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *rows, "intr 12345 0 0", "ctxt 1"]) + "\n"


@pytest.mark.parametrize(
    ("busy", "expected"),
    [([0, 0], 2), ([90, 0], 1), ([90, 90], 1), ([20, 10], 2), ([45, 45], 1), ([90, 80, 5, 0, 0, 0, 0, 0], 2)],
)
def test_idle_cpus_are_the_cpus_of_the_affinity_that_no_process_uses(tmp_path, cpus, monkeypatch, busy, expected):
    cpus(min(4, len(busy)))
    write(tmp_path, {"proc/stat": stat([0] * len(busy)).replace(" 90 10 ", " 0 0 ")})
    monkeypatch.setattr(threads.time, "sleep", lambda _: write(tmp_path, {"proc/stat": stat(busy)}))
    assert idle_cpus(tmp_path) == expected


def test_a_quota_limits_the_idle_cpus(tmp_path, cpus):
    cpus(64)
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert set_threads(root=tmp_path) == Threads(2, "2 of 2 available CPUs idle")
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("5,2", 5)])
def test_omp_num_threads_of_the_user_is_kept(cpus, monkeypatch, text, number):
    cpus(8)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert set_threads(stored=2) == Threads(number, "OMP_NUM_THREADS")
    assert os.environ["OMP_NUM_THREADS"] == text


@pytest.mark.parametrize("set_before", ["3", "none"])
def test_the_option_overrides_omp_num_threads(monkeypatch, set_before):
    monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    assert set_threads(asked=5, stored=2).number == 5
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_a_resumed_run_takes_the_stored_number_unless_fewer_cpus_are_available(tmp_path, cpus):
    for available, expected in ((8, 4), (3, 3)):
        os.environ.pop("OMP_NUM_THREADS", None)
        cpus(available)
        assert set_threads(stored=4, root=tmp_path).number == expected


def test_the_processes_of_a_machine_share_its_cpus(tmp_path, cpus, monkeypatch):
    cpus(8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert set_threads(root=tmp_path).number == 2


@pytest.mark.parametrize("number", [0, -1, 1_025])
def test_a_number_of_threads_out_of_range_is_rejected(number):
    with pytest.raises(InputError, match=f"threads: must be from 1 to 1,024, got {number}"):
        set_threads(asked=number)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_a_process_that_is_bound_to_one_cpu_starts_one_thread(monkeypatch):
    cpu = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}})\n"
        "from models.common.threads import set_threads; print(set_threads().number)\n"
        "from serving.offline.sample import Options\n"
        "print(Options.__dataclass_fields__['processes'].default_factory())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=UNTHREADED, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "1"], done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list the threads of a process")
def test_serving_starts_no_threads_of_numpy():
    code = "import serving, numpy, models.onnx_file.generator, os; print(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in UNTHREADED.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1", done.stderr
