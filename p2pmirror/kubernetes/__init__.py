"""Asking the API of the Kubernetes that this node is a part of: lists, watches and single objects, as a pod may.

Laws:
- it only reads: every question is a GET;
- what the API sends is decoded against declared shapes; what is none of them is `PeerMisbehaved`, a refusal is
  `ApiRefused`, and a pod without a service account has `NoAccess`;
- a session is a block: when it is left nothing is open; deadlines are the caller's.

It speaks HTTP/1.1 through the agent's own client, over `wire.Network`, so that simulations and tests can hold the
other end.

Follows Kubernetes' "API Concepts" (lists in chunks, watches, bookmarks, 410) and "Accessing the API from a Pod".
"""

from p2pmirror.kubernetes.access import Access, NoAccess
from p2pmirror.kubernetes.objects import ApiRefused, Gone
from p2pmirror.kubernetes.session import Session, Sessions, open_session

__all__ = ["Access", "ApiRefused", "Gone", "NoAccess", "Session", "Sessions", "open_session"]
