"""From slices to features: the Gabor information bottleneck and the ResNet-18 trunk (paper 1.3)."""
