"""What a plan says, as a table for a terminal and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

# Gigabytes below which a number is said in megabytes.
_SMALL = 0.1


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take.

    - `seconds`: By the clock, on this machine as busy as it is now; None where somebody else does it.
    - `what`: The counts that it follows from.
    """

    stage: str
    seconds: float | None
    what: str


@dataclass(frozen=True)
class Outlook:
    """What the test split can show of "equivalent" at the margin.

    - `fewest`: Patients below which it is out of reach, even of a generator without noise.
    - `usual`: Patients with which all rows are equivalent in four audits of five, where one decision in fifty, or three
      points of a probability, are the generator's noise.
    """

    patients: int
    margin: float
    fewest: int
    usual: int

    def __str__(self) -> str:
        asked = (
            f"equivalence within {self.margin:g} takes {self.fewest} test patients at least, about {self.usual} usually"
        )
        if self.patients < self.fewest:
            return (
                f"{asked}: with {self.patients}, every verdict but dependence is inconclusive from the start; give the "
                "test split a larger share or more patients, or widen test.margin"
            )
        if self.patients < self.usual:
            return f"{asked}: with {self.patients}, many verdicts will be inconclusive"
        return f"{asked}; there are {self.patients}"


@dataclass(frozen=True)
class AuditPlan:
    """What an audit will do and take on this machine.

    - `images`: Images and patients by split.
    - `pictures`: What the sample of image files is like.
    - `generator`: Kind, preset, size, and the settings that the images and the device decide.
    - `parameters`: Of each network, by name.
    - `peak_memory_mb`: 10^6 bytes of the process; `peak_gpu_mb` of the GPU, None without one.
    - `disk_mb`: Of the finished run and, on top, of what is there only while it works.
    - `notes`: What the checks of models and data remarked.
    """

    images: dict[str, dict[str, int]]
    levels: dict[str, dict[str, int]]
    pictures: str
    held: tuple[str, ...]
    generator: dict[str, Any]
    parameters: dict[str, int]
    stages: tuple[StagePlan, ...]
    peak_memory_mb: float | None
    peak_gpu_mb: float | None
    disk_mb: dict[str, float]
    free_disk_mb: float
    outlook: Outlook
    notes: tuple[str, ...]
    benchmark_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds of all stages that run here."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What will stop the audit, or leave it inconclusive, as things are."""
        needed, found = sum(self.disk_mb.values()), []
        if needed > self.free_disk_mb:
            found.append(f"The disk has {_bytes(self.free_disk_mb)} free and the run needs about {_bytes(needed)}.")
        if self.outlook.patients < self.outlook.fewest:
            found.append(f"Too few patients: {self.outlook}.")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON, without a path."""
        return {"schema": "citlr.plan/1", **asdict(self), "seconds": self.seconds, "warnings": list(self.warnings)}

    def __str__(self) -> str:
        rows = [(f"images, {split}", _counted(one)) for split, one in self.images.items()]
        rows += [(f"level {name}, test", _counted(one)) for name, one in self.levels.items()]
        rows += [("files", self.pictures), ("held", ", ".join(self.held) or "nothing")]
        rows += [("generator", ", ".join(f"{name} {value}" for name, value in self.generator.items()))]
        rows += [(f"network {name}", f"{count:,} parameters") for name, count in self.parameters.items()]
        rows += [(f"stage {one.stage}", f"{_time(one.seconds):>12}   {one.what}") for one in self.stages]
        rows += [("all stages", f"{_time(self.seconds):>12}   from a benchmark of {_time(self.benchmark_seconds)}")]
        memory = "unknown" if self.peak_memory_mb is None else f"about {_bytes(self.peak_memory_mb)}"
        gpu = "" if self.peak_gpu_mb is None else f", and {_bytes(self.peak_gpu_mb)} on the GPU"
        parts = ", ".join(f"{_bytes(size)} {name}" for name, size in self.disk_mb.items())
        rows += [("peak memory", memory + gpu), ("disk", f"about {parts}; {_bytes(self.free_disk_mb)} are free")]
        rows += [("patients", str(self.outlook))]
        rows += [("note", note) for note in self.notes] + [("WARNING", warning) for warning in self.warnings]
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _counted(one: dict[str, int]) -> str:
    return f"{one['images']:,} of {one['patients']:,} patients"


def _bytes(mb: float) -> str:
    return f"{mb / 1000:.1f} GB" if mb / 1000 >= _SMALL else f"{mb:.1f} MB"


def _time(seconds: float | None) -> str:
    """Say a time in the unit that one would.

    >>> [_time(one) for one in (None, 0.4, 50, 600, 40_000, 900_000)]
    ['elsewhere', '0.4 s', '50 s', '10 min', '11.1 h', '10.4 days']
    """
    if seconds is None:
        return "elsewhere"
    for limit, unit, of in ((100, "s", 1), (6000, "min", 60), (200_000, "h", 3600)):
        if seconds < limit:
            value = seconds / of
            return f"{value:.1f} {unit}" if value < 10 or unit == "h" else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"
