"""What the two rooms of STCCL share: windows of time, two ways to say how things relate in space and time, both forms, the scores."""
