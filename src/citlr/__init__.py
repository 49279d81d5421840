"""citlr: does a medical-image classifier depend on a sensitive attribute?"""

__version__ = "0.1.0"
