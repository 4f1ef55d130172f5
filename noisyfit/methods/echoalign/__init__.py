"""EchoAlign: the classifier and the transformers it consists of."""
