"""What to run: sweeps in Ray Tune's words, sweep files, the trials they yield, the plan, the search."""
