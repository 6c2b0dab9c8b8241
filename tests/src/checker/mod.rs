//! The checker: a recorder of everything that was published and heard, faults by a seed, and a judge.
//!
//! Publishers record every attempt with an id of its own and what they were answered; subscribers record everything
//! they are told. What is written is the [`history`] of a run. The [`judge`] reads a history, from a run or from a
//! file, and finds whatever breaks the delivery promise. The [`schedule`] of faults follows from a seed.
//!
//! Not here: what the promise is. That is docs/operations/delivery-checker.md.

pub mod backend;
pub mod history;
pub mod judge;
pub mod publisher;
mod resp;
pub mod run;
pub mod scene;
pub mod schedule;
pub mod sdk;
pub mod store;
pub mod subscriber;
