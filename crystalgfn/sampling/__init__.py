"""What a user calls: samplers, training, sharded sampling, tables and plots."""
