"""The distributed hash table: who has a key, kept by the nodes closest to it, over UDP.

messages, codec, table, records, lookup, members and placement only think; rpc, liveness, search, finding, join, publish, answers and node wait for them.
"""
