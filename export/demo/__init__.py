"""The demo: a synthetic slide and cohort, trained on, exported, scored and compared with what was drawn."""
