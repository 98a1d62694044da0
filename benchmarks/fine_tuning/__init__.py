"""Fine-tuning, beside training from new weights: see docs/fine-tuning.md."""
