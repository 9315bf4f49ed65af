"""What results say: means over seeds, fronts, the best within a budget. Needs neither torch nor Ray."""
