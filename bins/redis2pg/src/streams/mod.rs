//! Stream entries as rows of the stream table: what a row is (`row.rs`), how many are written at once and what became of
//! each (`write.rs`), and that those of a stream take effect in their order (`order.rs`).

pub(crate) mod order;
pub(crate) mod row;
pub(crate) mod write;
