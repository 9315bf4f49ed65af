"""Where and when: trials spread over a cluster by Ray Tune, their rows recorded, latency measured."""
