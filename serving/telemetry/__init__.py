"""Metrics and per-stage timings."""
