//! The process `tidegate`.

mod api;
mod cli;
mod edge;
mod join;
mod logs;
mod metrics;
mod ops;
mod settings;

fn main() {}
