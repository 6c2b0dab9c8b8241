//! Settings: as written, then checked and resolved.
