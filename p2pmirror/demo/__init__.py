"""A cluster of five real agents on this machine, an image on one of them, and clients that pull it as containerd would.

What happens, in order: `place` looks whether there is room, `agents` starts them, `image` makes an image on node 1,
`pulling` pulls it on node 2 and then on 3, 4 and 5 at once, `scenario` kills node 1 half-way, `verifying` reads every
byte again, and `ledger` says who got which bytes from whom. Nothing is left behind, unless that was asked for.

Laws: agents are processes as anybody would start them, and are asked through their own ports; whatever happens, the
processes and the directory go away with the demo; a failure is `DemoFailed` with a text for people.
"""

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.report import Display, NodeView, Options, Report
from p2pmirror.demo.scenario import run

__all__ = ["DemoFailed", "Display", "NodeView", "Options", "Report", "run"]
