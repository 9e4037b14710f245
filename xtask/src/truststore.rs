//! `cargo xtask truststore`: the certificates that a Java trust store trusts, as the PEM file that KAFKA_SSL_CA names.
//!
//! Java is not needed. The `openssl` program reads PKCS#12, in all the ways that Java has ever written it, and looks at
//! each certificate; only the frame of Java's own format is read here (`jks.rs`).

mod jks;
mod password;
mod pkcs12;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::install::{self, Tool};
use password::Password;

const OPENSSL: Tool = Tool { program: "openssl", package: "openssl" };

#[derive(clap::Args)]
#[command(after_long_help = "\
What goes into the PEM file: every certificate that stands in the store as a trusted one. Those that came with a
private key are its owner's own and not trusted by standing there: they are left out, unless --with-key-entries asks
for them (a store that one program uses to show its certificate and to trust others may need that). A PKCS#12 file
without a private key that another program than Java made marks nothing as trusted: of such a file, all are taken.

The password: of --password-file (its first line), else of --password, else `changeit`, which Java's own tools propose,
else a question on the terminal. --password shows in the list of processes and in the shell's history.

  cargo xtask truststore kafka.client.truststore.jks kafka-ca.pem
  KAFKA_SSL_CA=kafka-ca.pem")]
pub(crate) struct Args {
    /// The trust store, JKS or PKCS#12 (.jks, .p12, .pfx)
    #[arg(value_name = "IN")]
    store: PathBuf,
    /// The PEM file to make
    #[arg(value_name = "OUT")]
    pem: PathBuf,
    /// A file whose first line is the store's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The store's password
    #[arg(long, conflicts_with = "password_file")]
    password: Option<String>,
    /// Take the certificates that came with private keys, too
    #[arg(long)]
    with_key_entries: bool,
    /// Replace OUT if it exists
    #[arg(long)]
    force: bool,
}

/// What one file holds.
#[derive(Debug, PartialEq, Eq)]
struct Store {
    certificates: Vec<Certificate>,
    /// Private keys. Nothing else is asked of them.
    keys: usize,
}

/// One certificate, and how it stands in the store.
#[derive(Debug, PartialEq, Eq)]
struct Certificate {
    alias: String,
    /// By itself, and not as part of a private key's chain.
    trusted: bool,
    encoded: Encoded,
}

/// A certificate as its store has it.
#[derive(Debug, PartialEq, Eq)]
enum Encoded {
    Der(Vec<u8>),
    Pem(String),
}

/// Why a store could not be read.
enum Unreadable {
    /// Another one may do.
    Password,
    Other(anyhow::Error),
}

/// What a file is by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jks,
    Pkcs12,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // What a user is told of is the output first: nothing is asked for in vain.
    let same = fs::canonicalize(&args.pem)
        .is_ok_and(|pem| fs::canonicalize(&args.store).is_ok_and(|store| store == pem));
    ensure!(
        !same,
        "{} is both the store and the file to make; name another file to make",
        args.store.display()
    );
    ensure!(
        args.force || !args.pem.exists(),
        "{} exists; --force replaces it, or name another file",
        args.pem.display()
    );
    let bytes = fs::read(&args.store).with_context(|| format!("read {}", args.store.display()))?;
    let format = format(&bytes, args)?;
    install::ensure(&[OPENSSL], "to read certificates")?;
    let password = Password::of(args.password_file.as_deref(), args.password.as_deref())?;
    let store = password.open(&args.store, |password| match format {
        Format::Jks => jks::read(&bytes, password),
        Format::Pkcs12 => pkcs12::read(&args.store, password),
    })?;
    let (pem, count) = pem(&store, args)?;
    write(&args.pem, &pem, args.force)?;
    println!("{count} trusted certificate{} in {}:", if count == 1 { "" } else { "s" }, args.pem.display());
    for line in pem.lines().filter_map(|line| line.strip_prefix("# ")) {
        println!("  {line}");
    }
    println!("Use it with KAFKA_SSL_CA={}", args.pem.display());
    Ok(())
}

fn format(bytes: &[u8], args: &Args) -> Result<Format> {
    let store = args.store.display();
    // PKCS#12 is a DER sequence that begins with the number 3 (RFC 7292, section 4).
    let is_pkcs12 = bytes.first() == Some(&0x30)
        && bytes.iter().take(12).collect::<Vec<_>>().windows(3).any(|v| v == [&2, &1, &3]);
    match bytes {
        _ if bytes.starts_with(&jks::MAGIC) => Ok(Format::Jks),
        _ if bytes.starts_with(&[0xce; 4]) => bail!(
            "{store} is a JCEKS store; turn it into PKCS#12 first: keytool -importkeystore -srckeystore {store} \
             -srcstoretype JCEKS -destkeystore {store}.p12 -deststoretype PKCS12"
        ),
        _ if is_pkcs12 => Ok(Format::Pkcs12),
        _ if is_pem(bytes) => bail!("{}", what_pem_is_good_for(bytes, args)),
        [0x30, ..] => bail!(
            "{store} is neither a JKS nor a PKCS#12 store; if it is a single certificate: openssl x509 -inform DER \
             -in {store} -out {}",
            args.pem.display()
        ),
        [] => bail!("{store} is empty"),
        _ => bail!("{store} is neither a JKS nor a PKCS#12 store"),
    }
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

/// The other direction: nothing to do for us, and for Java its own tool does it.
fn what_pem_is_good_for(bytes: &[u8], args: &Args) -> String {
    let (file, out) = (args.store.display(), args.pem.display());
    let count = bytes.windows(BEGIN.len()).filter(|window| *window == BEGIN.as_bytes()).count();
    let mut text = format!(
        "{file} is PEM already, which the bridges take as it is: KAFKA_SSL_CA={file}\n\
         To make a trust store for Java of it: keytool -importcert -noprompt -alias NAME -file {file} -keystore {out} \
         -storetype PKCS12"
    );
    if count > 1 {
        text += &format!(
            "\nkeytool takes the first of its {count} certificates only: split the file, and import each under a NAME of \
             its own"
        );
    }
    text
}

/// The file's text, and how many certificates it has. A comment before each says which it is.
fn pem(store: &Store, args: &Args) -> Result<(String, usize)> {
    let (mut text, mut count, mut left_out) = (String::new(), 0, 0);
    for certificate in &store.certificates {
        if !certificate.trusted && !args.with_key_entries {
            left_out += 1;
            continue;
        }
        let (format, input) = match &certificate.encoded {
            Encoded::Der(der) => ("DER", der.as_slice()),
            Encoded::Pem(pem) => ("PEM", pem.as_bytes()),
        };
        let arguments = ["x509", "-inform", format, "-subject", "-enddate", "-nameopt", "RFC2253,utf8"];
        let output = openssl(&arguments, input)?;
        let alias = one_line(&certificate.alias);
        ensure!(
            output.status.success(),
            "the certificate {alias:?} in {} is none: {}",
            args.store.display(),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        let found = String::from_utf8_lossy(&output.stdout);
        let said =
            |name: &str| found.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let (subject, until) = (said("subject="), said("notAfter="));
        let (start, end) = (found.find(BEGIN), found.find(END));
        let (start, end) = start.zip(end).context("openssl prints the certificate")?;
        text +=
            &format!("# {alias}: {}, until {until}\n{}\n", one_line(subject), &found[start..end + END.len()]);
        count += 1;
    }
    let file = args.store.display();
    match (count, left_out, store.keys) {
        (0, 0, 0) => bail!("{file} holds no certificate"),
        (0, 0, keys) => bail!("{file} holds no certificate, only {keys} private keys"),
        (0, left_out, _) => bail!(
            "{file} holds no trusted certificate; {left_out} came with private keys: is it the key store? \
             --with-key-entries trusts these"
        ),
        (_, 0, _) => {}
        (_, left_out, _) => {
            println!("left out {left_out} that came with private keys; --with-key-entries trusts these too")
        }
    }
    Ok((text, count))
}

/// An alias may hold anything; a comment is one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn write(file: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", file.display()))
}

/// Runs it with `input`; its English is what we look for in errors, and a password never stands among the arguments.
fn openssl(arguments: &[&str], input: &[u8]) -> Result<Output> {
    let mut child = Command::new(install::path_of(OPENSSL.program)?)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start openssl")?;
    // It may have found a fault before it read everything: its own words are the better error. It cannot block on its
    // output meanwhile: it reads first, and answers then.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().context("wait for openssl")
}

#[cfg(test)]
#[path = "truststore/tests.rs"]
mod tests;
