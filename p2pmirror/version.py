"""The version of p2pmirror, and nothing else."""

VERSION = "0.1.0"
