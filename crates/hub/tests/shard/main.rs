//! A shard's promises, asked by its public methods and read from the frames in its outboxes.

mod node;

mod batches;
mod connecting;
mod consulting;
mod contiguous;
mod controlling;
mod counting;
mod delivering;
mod ending;
mod events;
mod heartbeat;
mod latest;
mod properties;
mod publishing;
mod recovering;
mod subscribing;
