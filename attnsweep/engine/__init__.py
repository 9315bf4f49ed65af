"""Where and when: trials run on Ray Tune or in this process, their rows recorded, latency measured."""
