"""What every room speaks of: errors, axes, columns, costs, trials and their ids; neither torch nor Ray."""
