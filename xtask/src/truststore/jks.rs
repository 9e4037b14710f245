//! Java's own format of key stores, as `sun.security.provider.JavaKeyStore` of OpenJDK writes and documents it. It owns
//! the frame: entries, and the digest over all, which tells a wrong password. Private keys stay as they are, encrypted.
//!
//! All numbers are big-endian. A text is two bytes of length, then so many bytes; `data` four bytes of length, then so
//! many.
//!
//! ```text
//! magic:4 version:4 entries:4
//!   tag:4 (1, a private key)           alias:text created:8 key:data certificates:4 certificate…
//!   tag:4 (2, a trusted certificate)   alias:text created:8 certificate
//!   certificate: type:text (from version 2 on) DER:data
//! SHA-1:20 of the password in UTF-16, `Mighty Aphrodite` and all before
//! ```

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Certificate, Encoded, Store, Unreadable, openssl};

pub(super) const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const DIGEST: usize = 20;

pub(super) fn read(bytes: &[u8], password: &str) -> Result<Store, Unreadable> {
    // Entries first: what is cut off is no matter of the password.
    let (store, length) =
        entries(bytes).map_err(|error| Unreadable::Other(error.context("it is damaged")))?;
    let digest = digest(password, &bytes[..length]).map_err(Unreadable::Other)?;
    match &bytes[length..] {
        found if found == digest => Ok(store),
        found if found.len() == DIGEST => Err(Unreadable::Password),
        found => Err(Unreadable::Other(anyhow!("it is damaged: {} bytes of digest", found.len()))),
    }
}

fn digest(password: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut input: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    input.extend_from_slice(b"Mighty Aphrodite");
    input.extend_from_slice(bytes);
    let output = openssl(&["dgst", "-sha1", "-binary"], &input)?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(output.stdout)
}

/// The entries, and how many bytes they are.
fn entries(bytes: &[u8]) -> Result<(Store, usize)> {
    let mut reader = Reader { bytes, at: MAGIC.len() };
    let version = reader.number()?;
    ensure!((1..=2).contains(&version), "its version is {version}, and 1 and 2 are known");
    let mut store = Store { certificates: Vec::new(), keys: 0 };
    for _ in 0..reader.number()? {
        let tag = reader.number()?;
        let alias = reader.text()?;
        reader.take(8)?;
        let (trusted, certificates) = match tag {
            1 => {
                let key = reader.number()?;
                reader.take(key)?;
                store.keys += 1;
                (false, reader.number()?)
            }
            2 => (true, 1),
            other => bail!("an entry is of kind {other}, and 1 and 2 are known"),
        };
        for _ in 0..certificates {
            if version == 2 {
                let kind = reader.text()?;
                ensure!(kind == "X.509", "{alias} is a certificate of type {kind}, not X.509");
            }
            let length = reader.number()?;
            let encoded = Encoded::Der(reader.take(length)?.to_vec());
            store.certificates.push(Certificate { alias: alias.clone(), trusted, encoded });
        }
    }
    Ok((store, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken =
            rest.get(..length).with_context(|| format!("it ends within what begins at byte {}", self.at))?;
        self.at += length;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_be_bytes(bytes) as usize)
    }

    /// Java's own UTF-8, which differs in NUL and beyond the first 65,536 characters: those are shown as `�`.
    fn text(&mut self) -> Result<String> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes were taken"));
        Ok(String::from_utf8_lossy(self.take(length.into())?).into_owned())
    }
}
