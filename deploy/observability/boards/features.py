"""The cache of Features, the arena, affinity."""

from __future__ import annotations

from boards.panel import Dashboard, Panel, per, ratio

CACHE = "medserve_features_cache_total"
FEATURES = Dashboard(
    "features",
    "medserve: Features, cache and affinity",
    (
        (
            "Cache",
            (
                Panel("Look-ups by outcome", "ops", ((per(CACHE, "pool, outcome"), "{{pool}} {{outcome}}"),)),
                Panel(
                    "Part found",
                    "percentunit",
                    ((ratio(per(CACHE, "pool", '{outcome!="miss"}'), per(CACHE, "pool")), "{{pool}}"),),
                ),
                Panel("Evictions", "ops", ((per("medserve_features_cache_evictions_total", "pool"), "{{pool}}"),)),
                Panel("Bytes held", "bytes", (("sum by (pool) (medserve_features_cache_bytes)", "{{pool}}"),)),
            ),
        ),
        (
            "Arena",
            (
                Panel(
                    "Filled part of each node's arena",
                    "percentunit",
                    (
                        (
                            "medserve_features_arena_used_bytes / (medserve_features_arena_budget_bytes > 0)",
                            "{{instance}} {{pool}}",
                        ),
                    ),
                ),
                Panel(
                    "Images turned away: every slot in use",
                    "ops",
                    ((per("medserve_features_arena_full_total", "instance, pool"), "{{instance}} {{pool}}"),),
                ),
            ),
        ),
        (
            "Affinity",
            (
                Panel(
                    "Prompts by handle that found their Features",
                    "ops",
                    ((per("medserve_affinity_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Requests at their home replica, or at a successor",
                    "reqps",
                    ((per("medserve_affinity_routes_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Changes of a pool's replicas",
                    "short",
                    (("sum by (pool, direction) (increase(medserve_affinity_rehash_total[1h]))", "{{pool}} {{direction}}"),),
                ),
            ),
        ),
    ),
)
