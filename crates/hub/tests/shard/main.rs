//! A shard's promises, asked by its public methods and read from the frames in its outboxes.

mod node;

mod batches;
mod connecting;
mod delivering;
