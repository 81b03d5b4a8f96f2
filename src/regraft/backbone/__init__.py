"""A pretrained network seen as stages that can be cut, and bundles read back."""
