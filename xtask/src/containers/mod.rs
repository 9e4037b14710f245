//! Everything that runs in containers: images, compose, Swarm. All of it goes through the commands `docker` and
//! `docker compose`, as a person would type them; whoever reads what `cargo xtask` prints can repeat it by hand.

pub(crate) mod catalog;
pub(crate) mod compose;
pub(crate) mod engine;
pub(crate) mod image;
mod settings;
pub(crate) mod swarm;
