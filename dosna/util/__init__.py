"""Small helpers that know nothing of arrays or stores."""
