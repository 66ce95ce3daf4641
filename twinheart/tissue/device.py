"""Which device jax runs on, and why it sees no GPU where one was wanted."""

from importlib.metadata import distributions
from pathlib import Path

import jax

from twinheart.errors import InputError

# Oldest driver with which each CUDA toolkit starts (NVIDIA, CUDA compatibility guide).
_OLDEST_DRIVER = {"12": 525, "13": 580}
_DRIVER = Path("/proc/driver/nvidia/version")


def require_device(kind: str) -> None:
    """Refuse to go on without the wanted kind of device.

    Parameters
    ----------
    kind : str
        ``"any"`` or ``"gpu"``.

    Raises
    ------
    InputError
        If the kind is unknown or jax sees no such device: why not, and what to do.

    Examples
    --------
    >>> from twinheart.tissue.device import require_device
    >>> require_device("any")
    """
    if kind not in ("any", "gpu"):
        raise InputError(f"unknown device '{kind}'; expected any or gpu.")
    if kind == "any":
        return
    try:
        jax.devices("gpu")
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS demands it
        first = (str(error).splitlines() or [""])[0]
        raise InputError(why_no_gpu(driver_version(), cuda_plugins(), first)) from None


def driver_version(path: Path = _DRIVER) -> str | None:
    """Version of the NVIDIA driver that is loaded, or None.

    Parameters
    ----------
    path : Path
        Where the driver tells.

    Returns
    -------
    str or None
        Such as ``"580.65.06"``.
    """
    if not path.exists():
        return None
    words = path.read_text().splitlines()[0].split()
    return next((w for w in words if w.count(".") >= 1 and w.replace(".", "").isdigit()), None)


def cuda_plugins() -> dict[str, str]:
    """CUDA plugins of jax that are installed: toolkit such as ``"13"``, and version."""
    found = {}
    for package in distributions():
        name = (package.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith("jax-cuda") and name.endswith("-plugin"):
            found[name.removeprefix("jax-cuda").removesuffix("-plugin")] = package.version
    return found


def why_no_gpu(driver: str | None, plugins: dict[str, str], error: str) -> str:
    """Why jax sees no GPU, and what to do, as one line.

    Parameters
    ----------
    driver : str or None
        Version of the driver, None if there is none.
    plugins : dict
        From `cuda_plugins`.
    error : str
        What jax said.

    Returns
    -------
    str
        The line.

    Examples
    --------
    >>> from twinheart.tissue.device import why_no_gpu
    >>> why_no_gpu("535.104.05", {"13": "0.11.2"}, "")  # doctest: +ELLIPSIS
    'no GPU: jax-cuda13-plugin 0.11.2 needs driver 580 or newer, got 535.104.05: ...'
    """
    if driver is None:
        return (
            "no GPU: this machine has no NVIDIA driver loaded, so jax runs on the CPU; leave the "
            "wish for a GPU out, or run on a machine with one."
        )
    if not plugins:
        return (
            f"no GPU: the driver {driver} is there, but jax {jax.__version__} has no CUDA plugin; "
            'pip install "jax[cuda13]" (driver 580 or newer) or "jax[cuda12]" (525 or newer).'
        )
    major = int(driver.split(".")[0])
    old = {k: v for k, v in plugins.items() if major < _OLDEST_DRIVER.get(k, 0)}
    if len(old) == len(plugins):
        toolkit, version = next(iter(old.items()))
        usable = [k for k, oldest in _OLDEST_DRIVER.items() if oldest <= major]
        advice = (
            f'pip install "jax[cuda{usable[-1]}]", or a newer driver' if usable else "update it"
        )
        return (
            f"no GPU: jax-cuda{toolkit}-plugin {version} needs driver {_OLDEST_DRIVER[toolkit]} or "
            f"newer, got {driver}: {advice}."
        )
    names = ", ".join(f"jax-cuda{k}-plugin {v}" for k, v in plugins.items())
    return (
        f"no GPU: the driver {driver} and {names} are there, but the plugin did not start: "
        f"{error or 'it gave no reason'}; it must be of the version of jax, {jax.__version__}, and "
        "CUDA_VISIBLE_DEVICES must not hide the card."
    )
