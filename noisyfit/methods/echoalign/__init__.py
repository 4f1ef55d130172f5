"""EchoAlign: the classifier, and the transformers that it is made of."""
