"""Scenes as they were driven, of our world and of real roads, and the samples that are learned from."""
