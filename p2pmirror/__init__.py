"""A peer-to-peer mirror of container images: one agent per node, no centre.

A tour, in the order in which one pull meets the rooms:

1. `wire.http_server` takes containerd's request off a socket (h11 reads the head).
2. `front.routes` reads what is asked for, checks names and filters, and makes a `resolve.want.Want` of it.
3. `resolve.resolver` asks the `store`: containerd's content (`store.containerd`), a layout (`store.ocilayout`), the
   cache of what was fetched before (`store.cache`).
   What is held goes back as an open file, and out of `wire.tcp` by sendfile.
4. What is not held is looked for: `routing.dht` streams the providers of a key while `resolve.race`, steered by
   `resolve.plan`, dials them through `peers.client`; `peers.scores` remembers how each of them behaved.
5. A manifest is read whole and verified (`resolve.manifests`). A blob begins a flight (`resolve.flights`) into the
   cache, which all who ask follow. `resolve.course` says where its bytes come from: a peer that has all of it, those
   who are fetching it, piece by piece (`resolve.swarm`), or, for one node of the cluster, its registry
   (`resolve.through`, `upstream.client`). What arrives is given on at once (`resolve.sharing`).
6. Without room for a flight a blob is relayed from one peer after another (`resolve.relay`), or passed on from its
   registry (`resolve.passing`).
7. A tag is what its registry says, else what it said last or the best claim (`resolve.tags`, `resolve.confirmed`).
8. Nobody has it, or the registry refuses: a 404 in `front.errors`, and containerd goes to the registry by itself.

What containerd then stores is seen by `store.containerd.watch`, and `routing.advertise` tells the holders of its key.
`rooms` builds all this, and `node` says who runs inside whom; `config` is the only reader of settings; `web` shows what
happens.
"""
