//! Values, read as JSON: many small ones in one round trip, each as of one moment; a large one in pieces, so that what
//! changes while it is read may be in it or not, and is seen when it is read the next time.

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{CustomCommand, Value};
use sync_core::rate_limit::RateLimiter;
use sync_core::redis::Fault;

use super::look::{self, Found, Kind};
use super::shape::Shape;

/// Elements that are asked for at once, of a large value.
const PIECE: usize = 1000;
/// JSONB holds at most 2^28 - 1 bytes of elements
/// (`JENTRY_OFFLENMASK` in <https://git.postgresql.org/gitweb/?p=postgresql.git;a=blob;f=src/include/utils/jsonb.h>).
const LONGEST: usize = (1 << 28) - 1;

/// What reading a value came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// As JSON.
    Json(Vec<u8>),
    /// It is not there any more, or of another type by now: the next pass looks again.
    Gone,
    /// It is longer than JSONB can be; so many bytes of JSON were written by then.
    TooLong(usize),
}

/// A small value, and how it looked when it was read.
pub(super) struct Small {
    pub(super) json: Vec<u8>,
    pub(super) digest: u64,
}

/// Small values, one for each key; `None` where there is none any more, or where it is large by now: the next pass
/// looks again.
pub(super) async fn small(
    client: &Client,
    keys: &[Bytes],
    shape: Shape,
) -> Result<Vec<Option<Small>>, Fault> {
    let whole = |found: Found| {
        let Found { kind, digest, elements } = found;
        let json = whole(kind, elements, shape)?;
        Some(Small { json, digest })
    };
    let values = look::values(client, keys).await?;
    Ok(values.into_iter().map(|found| found.and_then(whole)).collect())
}

fn whole(kind: Kind, mut elements: Vec<Bytes>, shape: Shape) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match kind {
        Kind::String => shape.string(&elements.pop()?, &mut out),
        Kind::Hash => shape.hash(in_pairs(elements), &mut out),
        Kind::Set => shape.set(elements, &mut out),
        Kind::SortedSet => shape.sorted_set(&in_pairs(elements), &mut out),
        Kind::List => shape.list(&elements, &mut out),
    }
    Some(out)
}

fn bounded(json: Vec<u8>) -> Read {
    if json.len() > LONGEST { Read::TooLong(json.len()) } else { Read::Json(json) }
}

/// The texts of a reply, whether it is flat or a list of pairs.
fn elements(value: Value) -> Vec<Bytes> {
    value.into_array().into_iter().filter_map(Value::into_bytes).collect()
}

fn in_pairs(flat: Vec<Bytes>) -> Vec<(Bytes, Bytes)> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
}

/// A large value, in pieces: what is in memory is its JSON, and one piece.
pub(super) async fn big(
    client: &Client,
    key: &Bytes,
    kind: Kind,
    shape: Shape,
    limiter: &RateLimiter,
) -> Result<Read, Fault> {
    let pieces = Pieces { client, key, limiter };
    let read = match kind {
        Kind::String => pieces.string(shape).await,
        Kind::Hash => pieces.hash(shape).await,
        Kind::List => pieces.list(shape).await,
        Kind::Set => pieces.set(shape).await,
        Kind::SortedSet => pieces.sorted_set(shape).await,
    };
    match read {
        // It is of another type by now; or, of a Cluster, on its way to another node.
        Err(Fault::WrongType(_)) => Ok(Read::Gone),
        Err(Fault::Busy(reason)) if reason.starts_with("MOVED") || reason.starts_with("ASK") => {
            Ok(Read::Gone)
        }
        read => read,
    }
}

struct Pieces<'a> {
    client: &'a Client,
    key: &'a Bytes,
    limiter: &'a RateLimiter,
}

impl Pieces<'_> {
    async fn string(&self, shape: Shape) -> Result<Read, Fault> {
        let length =
            self.ask(fred::cmd!("STRLEN", blocking: false), vec![Value::Bytes(self.key.clone())]).await?;
        let length = length.as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        if length > LONGEST {
            return Ok(Read::TooLong(length));
        }
        let value =
            self.ask(fred::cmd!("GET", blocking: false), vec![Value::Bytes(self.key.clone())]).await?;
        let Some(value) = value.into_bytes() else { return Ok(Read::Gone) };
        let mut out = Vec::new();
        shape.string(&value, &mut out);
        Ok(bounded(out))
    }

    /// Members of an object as they come: JSONB has no order, and of a name that SCAN returns twice it keeps one.
    async fn hash(&self, shape: Shape) -> Result<Read, Fault> {
        let (mut out, mut object) = (vec![b'{'], Vec::new());
        let mut cursor = "0".to_owned();
        loop {
            let (next, piece) = self.scan(fred::cmd!("HSCAN", blocking: false), &cursor).await?;
            object.clear();
            shape.hash(in_pairs(piece), &mut object);
            if object.starts_with(b"{\"$fields\"") {
                // A name is no text: then all of it has another shape, which has to be in one piece.
                return self.hash_at_once(shape).await;
            }
            if let [b'{', members @ .., b'}'] = object.as_slice()
                && !members.is_empty()
            {
                out.extend_from_slice(members);
                out.push(b',');
            }
            if out.len() > LONGEST {
                return Ok(Read::TooLong(out.len()));
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        if out.len() == 1 {
            return Ok(Read::Gone);
        }
        out.pop();
        out.push(b'}');
        Ok(bounded(out))
    }

    async fn hash_at_once(&self, shape: Shape) -> Result<Read, Fault> {
        let (mut words, mut bytes, mut cursor) = (Vec::new(), 0, "0".to_owned());
        loop {
            let (next, piece) = self.scan(fred::cmd!("HSCAN", blocking: false), &cursor).await?;
            bytes += piece.iter().map(Bytes::len).sum::<usize>();
            words.extend(piece);
            if bytes > LONGEST {
                return Ok(Read::TooLong(bytes));
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        if words.is_empty() {
            return Ok(Read::Gone);
        }
        let mut out = Vec::new();
        shape.hash(in_pairs(words), &mut out);
        Ok(bounded(out))
    }

    async fn set(&self, shape: Shape) -> Result<Read, Fault> {
        let (mut members, mut bytes, mut cursor) = (Vec::new(), 0, "0".to_owned());
        loop {
            let (next, piece) = self.scan(fred::cmd!("SSCAN", blocking: false), &cursor).await?;
            bytes += piece.iter().map(Bytes::len).sum::<usize>();
            members.extend(piece);
            if bytes > LONGEST {
                return Ok(Read::TooLong(bytes));
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        if members.is_empty() {
            return Ok(Read::Gone);
        }
        let mut out = Vec::new();
        shape.set(members, &mut out);
        Ok(bounded(out))
    }

    async fn list(&self, shape: Shape) -> Result<Read, Fault> {
        self.by_place("LRANGE", &[], |piece, out| shape.list_items(&piece, out)).await
    }

    async fn sorted_set(&self, shape: Shape) -> Result<Read, Fault> {
        self.by_place("ZRANGE", &["WITHSCORES"], |piece, out| shape.sorted_set_items(&in_pairs(piece), out))
            .await
    }

    /// From the first element to the last. Each option adds a word to each element of the reply.
    async fn by_place(
        &self,
        command: &'static str,
        options: &[&'static str],
        write: impl Fn(Vec<Bytes>, &mut Vec<u8>),
    ) -> Result<Read, Fault> {
        let words = 1 + options.len();
        let mut out = vec![b'['];
        for from in (0..).step_by(PIECE) {
            let (first, last) = (from.to_string(), (from + PIECE - 1).to_string());
            let mut arguments = vec![Value::Bytes(self.key.clone()), first.into(), last.into()];
            arguments.extend(options.iter().map(|option| Value::from_static_str(option)));
            let command = CustomCommand::new_static(command, None, false);
            let piece = elements(self.ask(command, arguments).await?);
            let is_last = piece.len() < words * PIECE;
            if !piece.is_empty() {
                if out.len() > 1 {
                    out.push(b',');
                }
                write(piece, &mut out);
            }
            if out.len() > LONGEST {
                return Ok(Read::TooLong(out.len()));
            }
            if is_last {
                break;
            }
        }
        if out.len() == 1 {
            return Ok(Read::Gone);
        }
        out.push(b']');
        Ok(bounded(out))
    }

    async fn scan(&self, command: CustomCommand, cursor: &str) -> Result<(String, Vec<Bytes>), Fault> {
        let unexpected = || Fault::Other("a scan's answer is not a cursor and a list".into());
        let count = PIECE.to_string();
        let arguments = vec![Value::Bytes(self.key.clone()), cursor.into(), "COUNT".into(), count.into()];
        let Value::Array(mut parts) = self.ask(command, arguments).await? else { return Err(unexpected()) };
        let (Some(list), Some(next)) = (parts.pop(), parts.pop()) else { return Err(unexpected()) };
        Ok((next.into_string().ok_or_else(unexpected)?, elements(list)))
    }

    async fn ask(&self, command: CustomCommand, arguments: Vec<Value>) -> Result<Value, Fault> {
        self.limiter.take().await;
        Ok(self.client.custom(command, arguments).await?)
    }
}
