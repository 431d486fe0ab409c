"""A harness of faults: hostile inputs and blows at random, each judged by the same rules (docs/security.md)."""
