"""A directory in OCI image layout as a store: read while others write it, and written so that a crash does no harm."""

from p2pmirror.store.ocilayout.store import LayoutOptions, OciLayoutStore
from p2pmirror.store.ocilayout.writer import LayoutWriter, Sink, WrongContent

__all__ = ["LayoutOptions", "LayoutWriter", "OciLayoutStore", "Sink", "WrongContent"]
