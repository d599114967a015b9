"""The edge: wire <-> domain. HTTP and gRPC are two thin fronts over one brain; what both need is in neither of them."""
