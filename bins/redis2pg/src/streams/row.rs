//! One entry as a row: `stream_key`, `message_id`, `data`, `timestamp`. Pure.

use sync_core::payload::Encoder;
use sync_core::record::Entry;

use crate::postgres::timestamp::Timestamp;
use crate::settings::{DataFormat, Settings};

/// More bytes than this do not fit into a message to the server (1 GB), whatever they are. JSONB's own limits are
/// lower, and the server's to say.
const LONGEST: usize = 1_000_000_000;

/// Writes `data`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowEncoder {
    encoder: Encoder,
    format: DataFormat,
}

impl RowEncoder {
    pub(crate) fn new(settings: &Settings) -> Self {
        let ordered = settings.tables.data == DataFormat::Pairs;
        let encoder =
            Encoder::new(settings.text.value_format, settings.text.encoding).for_parsed_json(ordered);
        Self { encoder, format: settings.tables.data }
    }

    fn write(&self, entry: &Entry, out: &mut Vec<u8>) {
        match self.format {
            DataFormat::Object => self.encoder.write_data(entry, out),
            DataFormat::Pairs => self.encoder.write_pairs(entry, out),
        }
    }
}

/// Why an entry cannot be a row, whatever the server says.
pub(crate) fn unfit(entry: &Entry) -> Option<String> {
    let beyond = || format!("its ID {} lies beyond the year 294276, where timestamptz ends", entry.id);
    time(entry).is_none().then(beyond)
}

fn time(entry: &Entry) -> Option<Timestamp> {
    Timestamp::of_unix_ms(entry.id.ms)
}

/// The rows of some records, as the arrays that one statement takes.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Where each stands, in the order given.
    pub(crate) places: Vec<usize>,
    pub(crate) streams: Vec<String>,
    pub(crate) ids: Vec<String>,
    pub(crate) times: Vec<Timestamp>,
    /// All of `data`, one behind the other, and where each ends.
    data: String,
    ends: Vec<usize>,
}

impl Rows {
    /// Rows of these entries, with their places and their streams' names; and why some of them cannot be one.
    pub(crate) fn of<'a>(
        entries: impl Iterator<Item = (usize, &'a str, &'a Entry)>,
        encoder: RowEncoder,
    ) -> (Self, Vec<(usize, String)>) {
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        let (mut kept, mut streams, mut ids, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut unfit = Vec::new();
        for (place, stream, entry) in entries {
            let start = data.len();
            encoder.write(entry, &mut data);
            let length = data.len() - start;
            let Some(time) = time(entry).filter(|_| length <= LONGEST) else {
                data.truncate(start);
                unfit.push((
                    place,
                    format!("its data is {length} bytes of JSON, and a message to the server holds 1 GB"),
                ));
                continue;
            };
            kept.push(place);
            streams.push(stream.to_owned());
            ids.push(entry.id.to_string());
            times.push(time);
            ends.push(data.len());
        }
        let data = String::from_utf8(data).expect("JSON is text");
        (Self { places: kept, streams, ids, times, data, ends }, unfit)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// `data` of one row.
    pub(crate) fn data(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.data[start..self.ends[at]]
    }
}
