//! PKCS#12 by the `openssl` program, which knows every way of encrypting it, and none. It owns what its words mean.

use std::path::Path;

use anyhow::{Context, anyhow};

use super::{BEGIN, Certificate, END, Encoded, Store, Unreadable, openssl};

/// Java's mark of a trusted certificate (`trustedKeyUsage`, Oracle's).
const TRUSTED: &str = "2.16.840.1.113894.746875.1.1:";

pub(super) fn read(file: &Path, password: &str) -> Result<Store, Unreadable> {
    let ask = |legacy: &[&str]| {
        let name = file.to_str().context("the store's name is UTF-8")?;
        let arguments = [&["pkcs12", "-info", "-nokeys", "-passin", "stdin", "-in", name], legacy].concat();
        openssl(&arguments, format!("{password}\n").as_bytes())
    };
    let mut output = ask(&[]).map_err(Unreadable::Other)?;
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("unsupported") {
        // Java encrypted with RC2 until version 16; OpenSSL 3 has it apart.
        output = ask(&["-legacy"]).map_err(Unreadable::Other)?;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(store(&String::from_utf8_lossy(&output.stdout), &said)),
        false if said.contains("Mac verify error") => Err(Unreadable::Password),
        false => {
            let reason = said.lines().last().unwrap_or_default();
            Err(Unreadable::Other(anyhow!("openssl cannot read it: {reason}")))
        }
    }
}

/// Certificates, each with its attributes before it, from what openssl prints; keys from what it tells of the frame.
fn store(printed: &str, said: &str) -> Store {
    let is_key = |line: &&str| line.starts_with("Shrouded Keybag") || line.starts_with("Key bag");
    let keys = said.lines().filter(is_key).count();
    let mut certificates = Vec::new();
    let mut rest = printed;
    while let Some((attributes, following)) = rest.split_once(BEGIN)
        && let Some((encoded, following)) = following.split_once(END)
    {
        let lines = || attributes.lines().map(str::trim);
        let alias = lines().find_map(|line| line.strip_prefix("friendlyName:")).unwrap_or("no name").trim();
        certificates.push(Certificate {
            alias: alias.to_owned(),
            trusted: lines().any(|line| line.starts_with(TRUSTED)),
            encoded: Encoded::Pem(format!("{BEGIN}{encoded}{END}\n")),
        });
        rest = following;
    }
    // Not made by Java, and no key store either.
    if keys == 0 {
        certificates.iter_mut().for_each(|certificate| certificate.trusted = true);
    }
    Store { certificates, keys }
}
