"""What every room speaks of: errors, axes, columns, costs, trials and their ids. Needs neither torch nor Ray."""
