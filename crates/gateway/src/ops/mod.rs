//! Operations: health, drain, registry.
