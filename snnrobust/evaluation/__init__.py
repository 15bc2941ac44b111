"""What a trained model is measured by: outcomes per sample and attack, and scalar measures."""
