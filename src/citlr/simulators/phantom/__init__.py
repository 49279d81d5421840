"""A chest phantom whose counterfactuals are exact."""

from citlr.simulators.phantom.effects import TrueEffect, true_effect
from citlr.simulators.phantom.regions import FINDINGS
from citlr.simulators.phantom.sample import PhantomSample
from citlr.simulators.phantom.world import PhantomWorld

__all__ = ["FINDINGS", "PhantomSample", "PhantomWorld", "TrueEffect", "true_effect"]
