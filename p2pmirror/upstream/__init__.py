"""Fetching from a real registry: tokens, limits, resumption, and whom it may dial at all."""
