"""Plans made real: freezing, the trunk cache, the training loop, snapshots, predictions."""
