"""One model over several machines. Imported only by workers that share a model."""
