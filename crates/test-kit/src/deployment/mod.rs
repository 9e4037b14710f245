//! Several Redis processes that make one source: a Cluster, or servers under sentinels.

pub mod cluster;
pub mod sentinel;
pub mod server;
