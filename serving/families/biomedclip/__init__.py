"""BiomedCLIP: pictures of the biomedical literature and labels or texts -> scores and vectors."""
