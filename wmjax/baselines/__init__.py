"""Reference models on raw features, tuned on the same split as the worlds that they are set beside."""
