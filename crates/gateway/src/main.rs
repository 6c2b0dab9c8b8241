//! The process `tidegate`.

mod api;
mod cli;
mod edge;
mod inbox;
mod join;
mod logs;
mod metrics;
mod ops;
mod settings;

fn main() {}
