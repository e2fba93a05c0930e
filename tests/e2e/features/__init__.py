"""The features, one module a group."""
