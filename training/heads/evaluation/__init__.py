"""How a trained head does on patients of another cohort, and which encoder gives the better head."""
