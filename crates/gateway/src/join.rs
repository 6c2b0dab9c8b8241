//! Where hub and relay meet.
