//! Everything that runs in containers: images, compose, Swarm. All of it goes through the commands `docker` and
//! `docker compose`, as a person would type them; whoever reads what `cargo xtask` prints can repeat it by hand.

mod catalog;
mod compose;
mod engine;
mod image;
mod settings;
mod swarm;

pub(crate) use compose::{Args as ComposeArgs, run as compose};
pub(crate) use image::{Args as ImageArgs, run as image};
pub(crate) use swarm::{Args as SwarmArgs, run as swarm};
