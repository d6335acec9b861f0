"""Eight simulated CPU devices, and one compilation cache for the session and its worker processes.

JAX_PLATFORMS, XLA_FLAGS and JAX_COMPILATION_CACHE_DIR from outside are respected; a cache folder that
outlives the session makes the next run several times faster.
"""

import atexit
import gc
import itertools
import os
import re
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

# What a test sees does not depend on who runs it, and where: the terminal, the time zone, a cluster's
# variables, what was planned before.
for _name in [*os.environ]:
    if _name.startswith(("SLURM_", "OMPI_", "RAY_")) or _name in (
        *(
            "COLUMNS",
            "LINES",
            "NO_COLOR",
            "FORCE_COLOR",
            "CLICOLOR",
            "CLICOLOR_FORCE",
            "TTY_COMPATIBLE",
            "TTY_INTERACTIVE",
        ),
        *("JAXMODELS_TRACEBACK", "JAXMODELS_LAUNCHER", "PYTHONSAFEPATH", "PYTHONWARNINGS"),
        *("COORDINATOR_ADDRESS", "JAX_COORDINATOR_ADDRESS", "JAX_LOCAL_DEVICE_IDS", "TPU_PROCESS_ADDRESSES"),
    ):
        del os.environ[_name]
os.environ["TZ"] = "UTC"
time.tzset()
if "JAXMODELS_TESTS_CACHE" not in os.environ:  # as above
    os.environ["JAXMODELS_TESTS_CACHE"] = tempfile.mkdtemp(prefix="jaxmodels-tests-plans-")
    atexit.register(shutil.rmtree, os.environ["JAXMODELS_TESTS_CACHE"], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = os.environ["JAXMODELS_TESTS_CACHE"]
if (
    "JAX_COMPILATION_CACHE_DIR" not in os.environ
):  # the first process makes it, pytest-xdist's workers inherit it
    _folder = tempfile.mkdtemp(prefix="jaxmodels-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _folder
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tiny programs: tracing and compiling are what takes the time. XLA's older emitters, in versions that have
# them, take half of that for compiling; a program that is not cut into pieces for threads, a tenth less;
# without Python's lines, another.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# In the environment, for the commands that tests start too: by default JAX keeps what took a second.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])

# Compiling makes a first example slow, and a test that fails should fail again.
hypothesis.settings.register_profile(
    "jaxmodels", deadline=None, derandomize=True, database=None, max_examples=10
)
hypothesis.settings.load_profile("jaxmodels")


# The files that take longest begin, so that no process ends with one of them alone.
FIRST = (
    *("test_contract", "test_faults", "test_processes", "test_benchmarks", "test_accelerator_experiments"),
    *("test_runner", "test_sweep", "test_experiments", "test_tutorial", "test_verify_resume"),
)


def pytest_collection_modifyitems(config, items):
    """Puts the longest files first, and keeps `pytest -m fast` to what takes a fifth of a second."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))
    if re.search(r"(?<!not )\bfast\b", config.option.markexpr or ""):
        left_out = [item for item in items if any(map(item.get_closest_marker, ("slow", "thorough")))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish():
    """Tracing makes many objects and few circles: a tenth of the time would go to looking for them."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


MAPS, TESTS = Path("/proc/self/maps"), itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file_alone():
    """Drops a file's programs: each has memory maps, and a process crashes with more than 65,530 on Linux."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def programs_of_a_long_file():
    """The same within a file, where there are many; to count them takes time, so not after each test."""
    yield
    if next(TESTS) % 20 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture
def real():
    """Real data, in $JAXMODELS_DATA, else in ../shared/data beside the repository.

    real(name): the folder of a data set; skips the test where it is absent."""
    root = Path(
        os.environ.get("JAXMODELS_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data"
    ).resolve()

    def find(name):
        if not (root / name).is_dir():
            pytest.skip(
                f"no real data: {root / name} is absent; set JAXMODELS_DATA to the folder that holds {name}"
            )
        return root / name

    return find
