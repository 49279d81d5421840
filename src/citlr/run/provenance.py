"""Where numbers come from: versions of what computed them, and what it took."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

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
