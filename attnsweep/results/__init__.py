"""The tables of results: their columns, and how they are written, read, merged and locked."""
