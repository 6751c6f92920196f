"""Continual learning from condensed memory, judged on Avalanche.

Protocol (DM's continual experiment, followed by FYI Fig. E): classes come in steps; each step's set is distilled from
that step's classes only and appended to the memory; after each step a new network with a head for all classes is
trained from scratch on the memory alone and tested on the classes seen so far.

`steps`: which classes come when; `memory`: sets as torch data; `buffer`: the memory inside Avalanche's own strategies;
`judge`: what predictions are worth; `rehearsal`: the protocol; `streams`: strategies that see the current step's data.
Avalanche is imported by `library` alone, because importing it patches torch's Dataset.
"""

NUMERICS = 2
STREAM_NUMERICS = 1  # of `streams`
