"""Settings: one file, the environment and the flags become each room's frozen options; nobody else reads them."""

from p2pmirror.config.load import load
from p2pmirror.config.model import BadSetting, Config
from p2pmirror.config.settings import SETTINGS, Setting

__all__ = ["SETTINGS", "BadSetting", "Config", "Setting", "load"]
