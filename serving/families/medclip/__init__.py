"""MedCLIP: chest radiographs and findings -> a logit for each finding, over a set of sentences."""
