"""Datasets: what they are (`DataSource`) and their tensors (`Splits`)."""
