//! The process `tidegate`: settings, logs, one node, its end.

mod allocator;
mod api;
mod cli;
mod edge;
mod inbox;
mod join;
mod logs;
mod metrics;
mod node;
mod ops;
mod proxy;
mod settings;

use std::process::ExitCode;

use crate::cli::Task;
use crate::settings::Loaded;

fn main() -> ExitCode {
    match cli::task() {
        Task::Done(code) => code,
        Task::Serve(loaded) => serve(*loaded),
    }
}

fn serve(loaded: Loaded) -> ExitCode {
    logs::init(&loaded.settings.log);
    #[cfg(feature = "sabotage")]
    settings::sabotage::begin();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Redis over TLS takes the process' provider; installing it fails only where one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match actix_rt::System::new().block_on(node::run(loaded.settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
