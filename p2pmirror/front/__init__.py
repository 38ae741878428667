"""The registry API, for containerd and for peers: requests become wants, what is found becomes responses."""

from p2pmirror.front.metrics import FrontMetrics
from p2pmirror.front.routes import Front, FrontOptions

__all__ = ["Front", "FrontMetrics", "FrontOptions"]
