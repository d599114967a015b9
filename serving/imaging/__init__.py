"""Bytes -> pixels (`decode`, one module a file format, `window`), and masks -> bytes (`masks`)."""
