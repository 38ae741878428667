"""What was fetched, kept in a directory of its own: for containerds that throw layers away, for peers, for tomorrow."""

from p2pmirror.store.cache.metrics import CacheMetrics
from p2pmirror.store.cache.options import CacheHooks, CacheOptions
from p2pmirror.store.cache.pins import canonical_pin
from p2pmirror.store.cache.protocol import Cache, Incoming
from p2pmirror.store.cache.store import CacheStore

__all__ = ["Cache", "CacheHooks", "CacheMetrics", "CacheOptions", "CacheStore", "Incoming", "canonical_pin"]
