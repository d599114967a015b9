"""`medserve bench`: one module a scenario (s1 ... s5, soak, faults), the bare engines beside it, and the page that shows both.

Ratios are taken in one run: the bare engines and the server are measured in turn, several times, and medians are compared.
"""
