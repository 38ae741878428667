"""Bytes in and out of this machine: streams, datagrams, HTTP/1.1; knows nothing of images."""
