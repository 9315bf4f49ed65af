"""What is drawn and printed of results: fronts, tables, what a trial attends to, drives as films."""
