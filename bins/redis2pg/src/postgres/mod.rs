//! Everything that speaks to PostgreSQL: how it is reached, what an error of it means, and which connection does what.
//! Nothing here knows what a row is, or decides when to try again.

pub(crate) mod connection;
pub(crate) mod fault;
pub(crate) mod pool;
pub(crate) mod quote;
pub(crate) mod settings;
pub(crate) mod timestamp;
