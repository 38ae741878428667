"""What a person or a program asks the agent about itself: status page, JSON, metrics, readiness, running tasks."""

from p2pmirror.web.facts import Cache, Facts, Identity, Recorded
from p2pmirror.web.routes import Web

__all__ = ["Cache", "Facts", "Identity", "Recorded", "Web"]
