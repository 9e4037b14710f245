//! A moment as PostgreSQL's `timestamptz` has it: all of its range, which is longer than that of the usual date types.

use chrono::{DateTime, Utc};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// Microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp(i64);

/// From 1970 to 2000.
const EPOCH_MS: i64 = 946_684_800_000;
/// The first millisecond that is beyond: 294277-01-01 00:00:00 UTC (`END_TIMESTAMP` in PostgreSQL's timestamp.h).
const END_MS: i64 = 9_223_371_331_200_000 + EPOCH_MS;

impl Timestamp {
    /// The last millisecond that there is.
    pub(crate) const LAST: Self = Self((END_MS - 1 - EPOCH_MS) * 1000);

    /// Of Unix time in milliseconds; `None` when it lies beyond the range.
    pub(crate) fn of_unix_ms(ms: u64) -> Option<Self> {
        let ms = i64::try_from(ms).ok().filter(|ms| *ms < END_MS)?;
        Some(Self((ms - EPOCH_MS) * 1000))
    }
}

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Timestamp {
    fn array_type_info() -> PgTypeInfo {
        <DateTime<Utc> as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buffer)
    }

    fn size_hint(&self) -> usize {
        size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_range_and_nothing_beyond() {
        assert_eq!(Timestamp::of_unix_ms(946_684_800_000), Some(Timestamp(0)));
        assert_eq!(Timestamp::of_unix_ms(0), Some(Timestamp(-946_684_800_000_000)));
        assert_eq!(Timestamp::of_unix_ms(9_224_318_015_999_999), Some(Timestamp(9_223_371_331_199_999_000)));
        assert_eq!(Timestamp::of_unix_ms(9_224_318_016_000_000), None);
        assert_eq!(Timestamp::of_unix_ms(u64::MAX), None);
    }
}
