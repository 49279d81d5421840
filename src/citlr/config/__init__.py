"""The configuration of an audit: one YAML file, validated whole before anything expensive starts."""

from citlr.config.audit import AuditConfig as AuditConfig
from citlr.config.model import InputConfig as InputConfig
from citlr.config.model import ModelConfig as ModelConfig
from citlr.config.model import OutputConfig as OutputConfig
from citlr.config.reading import differences as differences
from citlr.config.reading import parse_config as parse_config
from citlr.config.reading import parse_section as parse_section
from citlr.config.reading import read_config as read_config
from citlr.config.sections import LEGIBLE as LEGIBLE
from citlr.config.sections import CohortConfig as CohortConfig
from citlr.config.sections import ControlsConfig as ControlsConfig
from citlr.config.sections import GateConfig as GateConfig
from citlr.config.sections import GenerateConfig as GenerateConfig
from citlr.config.sections import GeneratorConfig as GeneratorConfig
from citlr.config.sections import QualityConfig as QualityConfig
from citlr.config.sections import ReportConfig as ReportConfig
from citlr.config.sections import Section as Section
from citlr.config.sections import TestConfig as TestConfig
from citlr.config.written import read_yaml as read_yaml
