"""Features kept between prompts: what they are called and where they lie."""
