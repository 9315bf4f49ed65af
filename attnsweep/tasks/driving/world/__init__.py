"""The driving world: its geometry, its maps, who drives in it, and what the ego senses of it."""
