"""What archiver does: one file per verb, wiring sources, stages, stores and sinks together."""
