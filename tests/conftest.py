"""Settings shared by all tests: threads, headless pictures, real data, GPU skips."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    # Every worker would otherwise start a thread pool as wide as the machine. Read by XLA and
    # the BLAS libraries when they are first loaded, so it must be set before any test imports them.
    _THREADS = str(max(1, (os.cpu_count() or 1) // _WORKERS))
    for _name in ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, _THREADS)
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("PYVISTA_OFF_SCREEN", "true")


# Every compiled program takes some of the memory mappings that Linux gives to a process, 65,530.
_MAPPINGS, _MANY = Path("/proc/self/maps"), 30_000


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """Forget compiled programs after a module once they take many mappings."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > _MANY:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real data: `$TWINHEART_DATA`, else `../shared/data`; skips where it is absent."""
    folder = Path(os.environ.get("TWINHEART_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}: set TWINHEART_DATA to its folder")
    return folder


@pytest.fixture
def x64():
    """Float64 in one test, in all threads: `jax.enable_x64` would not reach those of callbacks."""
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def x64_module():
    """Float64 in a module; what runs once is compiled without much effort."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where jax sees none; jax is asked only if such a test was chosen."""
    chosen = [item for item in items if item.get_closest_marker("gpu")]
    if not chosen:
        return
    import jax

    if jax.default_backend() != "gpu":
        skip = pytest.mark.skip(reason=f"jax runs on '{jax.default_backend()}', no GPU found")
        for item in chosen:
            item.add_marker(skip)
