"""containerd's content store, over its gRPC API and its content directory."""
