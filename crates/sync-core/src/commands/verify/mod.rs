//! What every `verify` needs that compares streams of the source with what a destination has of them: the source's
//! entries page by page ([`Pages`]), what becomes of each ([`Verdict`], [`Tally`]), the lines of the answer ([`Lines`],
//! [`Total`]), and what the consumer group says of entries that are not there ([`waiting`], [`Letters`]). How the
//! destination is read, and in which order both are asked, is the bridge's.

mod group;
mod pages;
mod report;
mod tally;

use std::collections::BTreeSet;

pub use self::group::{Letters, left_out, trimmed_at_source, waiting};
pub use self::pages::Pages;
pub use self::report::{Lines, Total};
pub use self::tally::{Tally, Verdict, counted};

use super::CommandError;
use crate::record::StreamName;

/// The streams named on the command line, as key or dbN:key.
pub fn named(spelled: &[String], default_db: u16) -> Result<BTreeSet<StreamName>, CommandError> {
    let parse = |spelled: &String| {
        StreamName::parse(spelled, default_db)
            .map_err(|error| CommandError::Usage(format!("{spelled}: {error}")))
    };
    spelled.iter().map(parse).collect()
}
