"""Bytes on this node: what is held, under which names, and open files to serve it from."""
