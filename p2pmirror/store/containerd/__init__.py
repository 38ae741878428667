"""containerd's content store, over its gRPC API and its content directory."""

from p2pmirror.store.containerd.store import ContainerdStore, Options

__all__ = ["ContainerdStore", "Options"]
