"""One folder per model family, mutually independent: how one kind of model answers a request."""
