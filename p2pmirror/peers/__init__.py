"""Fetching from another node of the cluster, and remembering how each of them behaved."""
