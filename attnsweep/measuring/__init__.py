"""What an architecture costs on this machine: latency, memory."""
