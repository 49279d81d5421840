"""Worlds whose counterfactuals are known exactly."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from citlr.simulators.planted.world import semireal as semireal

__all__ = ["semireal"]


def __getattr__(name: str) -> Any:
    if name == "semireal":
        from citlr.simulators.planted.world import semireal

        return semireal
    raise AttributeError(f"module 'citlr.simulators' has no attribute '{name}'")
