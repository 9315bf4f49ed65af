"""How planners are judged: by driving, against what was recorded, and beside those that see nothing."""
