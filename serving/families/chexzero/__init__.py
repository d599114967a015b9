"""CheXzero: chest radiographs and findings -> a probability for each finding, from a positive and a negative sentence."""
