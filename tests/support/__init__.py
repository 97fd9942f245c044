"""What several tests share: toys, tiny models, settings of short runs, a server, reference formulas."""
