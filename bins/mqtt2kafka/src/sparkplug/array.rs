//! The array types of Sparkplug B (specification 3.0, §6.4.17): bytes as JSON lists. It owns their layout, and refuses what
//! does not fit it.

use super::json::{write_double, write_float, write_integer};
use sync_core::payload::write_json_string;

/// Appends the list that these bytes are under this data type. Nothing is appended, and false returned, if the type is no
/// array, or the bytes are not exactly one: a number short of bytes, another count of booleans than there are bytes for,
/// strings that are not UTF-8.
pub(super) fn write(out: &mut Vec<u8>, datatype: u32, bytes: &[u8]) -> bool {
    match datatype {
        22 => numbers(out, bytes, |out, one| write_integer(out, i8::from_le_bytes(one))),
        23 => numbers(out, bytes, |out, one| write_integer(out, i16::from_le_bytes(one))),
        24 => numbers(out, bytes, |out, one| write_integer(out, i32::from_le_bytes(one))),
        25 => numbers(out, bytes, |out, one| write_integer(out, i64::from_le_bytes(one))),
        26 => numbers(out, bytes, |out, one| write_integer(out, u8::from_le_bytes(one))),
        27 => numbers(out, bytes, |out, one| write_integer(out, u16::from_le_bytes(one))),
        28 => numbers(out, bytes, |out, one| write_integer(out, u32::from_le_bytes(one))),
        // DateTimeArray is milliseconds, as UInt64Array.
        29 | 34 => numbers(out, bytes, |out, one| write_integer(out, u64::from_le_bytes(one))),
        30 => numbers(out, bytes, |out, one| write_float(out, f32::from_le_bytes(one))),
        31 => numbers(out, bytes, |out, one| write_double(out, f64::from_le_bytes(one))),
        32 => booleans(out, bytes),
        33 => strings(out, bytes),
        _ => false,
    }
}

/// How many characters a byte becomes at most.
pub(super) fn growth(datatype: u32) -> usize {
    match datatype {
        // `false,` for each bit.
        32 => 48,
        // `\u0001` in a string, `-128,` else.
        22..=34 => 6,
        _ => 0,
    }
}

fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) -> bool {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
    true
}

fn numbers<const N: usize>(out: &mut Vec<u8>, bytes: &[u8], write: impl Fn(&mut Vec<u8>, [u8; N])) -> bool {
    let (all, rest) = bytes.as_chunks::<N>();
    rest.is_empty() && list(out, all, |out, one| write(out, *one))
}

/// A count, and then bits, the most significant of a byte first. What pads the last byte is no content.
fn booleans(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Some((count, bits)) = bytes.split_first_chunk() else { return false };
    let count = u32::from_le_bytes(*count);
    if count.div_ceil(8) as usize != bits.len() {
        return false;
    }
    list(out, 0..count as usize, |out, at| {
        let is_set = bits[at / 8] & 0x80 >> (at % 8) != 0;
        out.extend_from_slice(if is_set { b"true" } else { b"false" });
    })
}

/// Strings with a NUL behind each. A last one without it is one too.
fn strings(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    list(out, text.split_terminator('\0'), write_json_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_lists() {
        let check = |datatype: u32, hex: &str, list: &str| {
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("is hexadecimal"))
                .collect();
            let mut out = Vec::new();
            assert!(write(&mut out, datatype, &bytes), "{datatype} {hex}");
            assert_eq!(String::from_utf8(out).expect("is text"), list, "{datatype} {hex}");
        };
        check(22, "E97B", "[-23,123]");
        check(23, "D08A3075", "[-30000,30000]");
        check(24, "FFFFFFFFFAAFCB12", "[-1,315338746]");
        check(25, "CE0672AC189CBAC4FFFFFFFFFFFFFFFF", "[-4270929666821191986,-1]");
        check(26, "17FA", "[23,250]");
        check(27, "1E0088CC", "[30,52360]");
        check(28, "3400000049FB55C4", "[52,3293969225]");
        check(29, "3400000000000000D99E02D1B27637E4", "[52,16444743074749521625]");
        check(30, "A4709D3F98AEB242", "[1.23,89.341]");
        check(30, "0000C07F000080FF", "[\"NaN\",\"-Infinity\"]");
        check(31, "D7A205685BB528408E171C6F4CF78F40", "[12.354213,1022.9123213]");
        check(32, "0C00000034D0", "[false,false,true,true,false,true,false,false,true,true,false,true]");
        check(32, "0800000001", "[false,false,false,false,false,false,false,true]");
        check(32, "01000000FF", "[true]");
        check(32, "00000000", "[]");
        check(33, "4142430068656C6C6F00", r#"["ABC","hello"]"#);
        check(33, "4142430068656C6C6F", r#"["ABC","hello"]"#);
        check(33, "00410000", r#"["","A",""]"#);
        check(33, "0A22", r#"["\n\""]"#);
        check(34, "C7D0907524010000B8BAB89781010000", "[1256102875335,1656107875000]");
        for empty in [22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 33, 34] {
            check(empty, "", "[]");
        }
    }

    #[test]
    fn what_is_no_array_is_refused_whole() {
        let refused = |datatype: u32, bytes: &[u8]| {
            let mut out = b"before".to_vec();
            assert!(!write(&mut out, datatype, bytes), "{datatype} {bytes:?}");
            assert_eq!(out, b"before", "{datatype} {bytes:?}");
        };
        refused(23, b"abc");
        refused(24, b"abcde");
        refused(25, b"a");
        refused(30, b"abcde");
        refused(34, b"abcdefghi");
        refused(32, b"");
        refused(32, b"\x01\0\0");
        refused(32, b"\x01\0\0\0");
        refused(32, b"\xff\xff\xff\xff\xff");
        refused(32, b"\x08\0\0\0\x01\x02");
        refused(33, b"\xff\0");
        for other in [0, 1, 12, 17, 18, 21, 35, u32::MAX] {
            refused(other, b"");
        }
    }
}
