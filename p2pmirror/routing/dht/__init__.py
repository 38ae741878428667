"""The distributed hash table: who has a key, kept by the nodes closest to it, over UDP.

codec, table, records, lookup, members and placement only think; rpc, liveness, join, publish and node wait for them.
"""
