"""Training styles on a FLUX.2-klein base: `iris styles train`."""
