"""The distributed hash table: who has a key, kept by the nodes closest to it, over UDP.

messages, codec, table, records, lookup, members, placement and view only think; the others wait for them.
"""
