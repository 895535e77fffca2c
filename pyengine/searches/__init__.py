"""The searches: validate, propose, refine, certify, select."""
