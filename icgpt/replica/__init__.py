"""The embedded Internet Computer: runs canisters as the platform does, on one machine."""
