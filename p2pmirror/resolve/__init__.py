"""Where bytes come from: this node, a peer, or nobody."""
