"""GFlowNet training for any environment: rollouts, objectives, replay, training, diagnostics."""
