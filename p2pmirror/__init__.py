"""A peer-to-peer mirror of container images."""
