"""What this machine is and what is installed on it, without a path or anything of a patient, and what a run took."""

import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from citlr.threads import COUNT, POLICY, SPINNING, processors

try:
    import resource
except ImportError:  # no POSIX system
    resource = None  # type: ignore[assignment]

PACKAGES = ("citlr", "torch", "monai", "numpy", "scipy", "scikit-learn", "pandas", "lightning-fabric")


def peak_memory_mb() -> float | None:
    """Return this process's largest resident memory so far, in MB (10^6 bytes); None where the system does not say."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


# What bounds the threads that compute.
VARIABLES = (COUNT, SPINNING, POLICY, "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_BLOCKTIME")
# Extras that are for those who work on this package.
_INSIDE = frozenset({"test"})
_NEEDED = re.compile(r"^([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]")


@dataclass(frozen=True)
class Device:
    """A device that networks can run on; `memory_gb` is all of its memory, 10^9 bytes, None where nobody says."""

    kind: str
    name: str
    memory_gb: float | None


@dataclass(frozen=True)
class Extra:
    """An extra of the package; `missing` are its packages that are not installed."""

    name: str
    missing: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """The command that installs it; empty where all is there."""
        return f"pip install 'citlr[{self.name}]'" if self.missing else ""


@dataclass(frozen=True)
class Machine:
    """What a report of a fault has to say of the machine.

    - `threads`: That compute here; `variables` are those that bound them, None where one is not set.
    - `free_disk_gb`: Where the command was called, and where temporary files go, in 10^9 bytes.
    """

    versions: dict[str, str]
    devices: tuple[Device, ...]
    processors: int
    threads: int
    variables: dict[str, str | None]
    free_disk_gb: dict[str, float]
    extras: tuple[Extra, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON."""
        extras = [{**asdict(one), "remedy": one.remedy} for one in self.extras]
        return {"schema": "citlr.doctor/1", **asdict(self), "extras": extras}

    def __str__(self) -> str:
        lines = [f"{name:<18}{version}" for name, version in self.versions.items()]
        for device in self.devices:
            memory = "" if device.memory_gb is None else f", {device.memory_gb:.1f} GB"
            lines.append(f"{'device':<18}{device.kind}: {device.name}{memory}")
        said = ", ".join(f"{name}={value}" for name, value in self.variables.items() if value is not None)
        lines.append(f"{'threads':<18}{self.threads} on {self.processors} processors{f' ({said})' if said else ''}")
        lines += [f"{'free disk':<18}{gb:.1f} GB {place}" for place, gb in self.free_disk_gb.items()]
        for extra in self.extras:
            state = f"no {', '.join(extra.missing)}: {extra.remedy}" if extra.missing else "installed"
            lines.append(f"{f'extra {extra.name}':<18}{state}")
        return "\n".join(lines)


def examine() -> Machine:
    """Look at this machine.

    >>> found = examine()
    >>> found.devices[0].kind, found.threads >= 1, "onnx" in [extra.name for extra in found.extras]
    ('cpu', True, True)
    """
    import torch

    return Machine(
        versions=versions(),
        devices=devices(),
        processors=processors(),
        threads=torch.get_num_threads(),
        variables={name: os.environ.get(name) for name in VARIABLES},
        free_disk_gb={"here": free_gb(Path()), "for temporary files": free_gb(Path(tempfile.gettempdir()))},
        extras=extras(),
    )


def devices() -> tuple[Device, ...]:
    """List the devices that there are, the processor first."""
    import torch

    found = [Device("cpu", f"{os.cpu_count()} processors", memory_gb())]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        found.append(Device("cuda", facts.name, round(facts.total_memory / 1e9, 1)))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple", None))
    return tuple(found)


def memory_gb() -> float | None:
    """Give the machine's memory in 10^9 bytes; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None


def free_gb(folder: Path) -> float:
    """Give the free space, in 10^9 bytes, of the disk on which a folder lies, or will lie once it is made."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return round(shutil.disk_usage(there).free / 1e9, 2)


def extras() -> tuple[Extra, ...]:
    """List the package's extras, and what of each is not installed."""
    needed: dict[str, list[str]] = {}
    for line in metadata.requires("citlr") or []:
        match = _NEEDED.match(line)
        if match and match[2] not in _INSIDE:
            needed.setdefault(match[2], []).append(match[1])
    return tuple(Extra(name, tuple(one for one in each if not _installed(one))) for name, each in needed.items())


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return find_spec(package.replace("-", "_")) is not None
    return True
