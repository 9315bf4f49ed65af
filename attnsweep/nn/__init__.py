"""Attention from scratch and what is put around it, for all tasks, with its cost in closed form."""
