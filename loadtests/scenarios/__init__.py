"""One scenario a file; each has a user over HTTP and one over gRPC."""
