"""What registries refused lately, so that they are not asked for it again at once. This module only thinks."""

from collections import OrderedDict

from p2pmirror.errors import MirrorError, NotHere, UpstreamRefused
from p2pmirror.oci import Digest
from p2pmirror.resolve.want import Want

DENIED_S = 30.0  # 401 and 403, of a repository: its credentials do not change within a pull
ABSENT_S = 0.5  # 404, of one tag or digest: an image may be pushed at any moment
KEPT_MAX = 4096  # refusals that are remembered, some 200 bytes each

_Subject = tuple[str, str, Digest | str | None]


class Refusals:
    """Refusals by what was asked for; None in place of a reference is the whole repository."""

    def __init__(self) -> None:
        """Nothing was refused."""
        self._kept: OrderedDict[_Subject, tuple[float, MirrorError]] = OrderedDict()

    def check(self, want: Want, now: float) -> None:
        """Raise the error again that a registry answered to this, or to its repository, a moment ago."""
        for subject in _subjects(want):
            until, error = self._kept.get(subject, (now, None))
            if error is not None and now < until:
                raise error

    def note(self, want: Want, error: MirrorError, now: float) -> None:
        """Remember a refusal; what is none is not remembered."""
        whole, one = _subjects(want)
        if isinstance(error, UpstreamRefused) and error.status in {401, 403}:
            self._keep(whole, now + DENIED_S, error)
        elif isinstance(error, NotHere):
            self._keep(one, now + ABSENT_S, error)

    def _keep(self, subject: _Subject, until: float, error: MirrorError) -> None:
        self._kept.pop(subject, None)
        self._kept[subject] = until, error
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)


def _subjects(want: Want) -> tuple[_Subject, _Subject]:
    return (want.registry, want.repository, None), (want.registry, want.repository, want.reference)
