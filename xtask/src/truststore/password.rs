//! Where a store's password comes from. It never shows: not on the terminal, nor among a program's arguments.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Store, Unreadable};

/// What Java's tools propose, and most trust stores have.
const USUAL: &str = "changeit";
const QUESTIONS: usize = 3;

/// See the module.
pub(super) enum Password {
    Given {
        password: String,
        by: String,
    },
    /// The usual one, else a question.
    Unknown,
}

impl Password {
    pub(super) fn of(file: Option<&Path>, password: Option<&str>) -> Result<Self> {
        match (file, password) {
            (Some(file), _) => {
                let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                let password = text.lines().next().unwrap_or_default().to_owned();
                Ok(Self::Given { password, by: format!("of {}", file.display()) })
            }
            (None, Some(password)) => {
                Ok(Self::Given { password: password.to_owned(), by: "of --password".to_owned() })
            }
            (None, None) => Ok(Self::Unknown),
        }
    }

    /// Reads the store with the first password that opens it.
    pub(super) fn open(
        &self,
        store: &Path,
        read: impl Fn(&str) -> Result<Store, Unreadable>,
    ) -> Result<Store> {
        let open = |password: &str| match read(password) {
            Ok(store) => Ok(Some(store)),
            Err(Unreadable::Password) => Ok(None),
            Err(Unreadable::Other(error)) => Err(error.context(format!("read {}", store.display()))),
        };
        let file = store.display();
        match self {
            Self::Given { password, by } => open(password)?
                .with_context(|| format!("the password {by} is wrong for {file}, or the file is damaged")),
            Self::Unknown => {
                if let Some(store) = open(USUAL)? {
                    return Ok(store);
                }
                if !std::io::stdin().is_terminal() {
                    bail!("the password of {file} is not {USUAL}; give it with --password-file");
                }
                for _ in 0..QUESTIONS {
                    if let Some(store) = open(&ask(&format!("password of {file}: "))?)? {
                        return Ok(store);
                    }
                    println!("wrong");
                }
                Err(anyhow!("no password opens {file}, or the file is damaged"))
            }
        }
    }
}

/// Asks on the terminal, wherever the output goes to.
fn ask(question: &str) -> Result<String> {
    let mut terminal =
        File::options().read(true).write(true).open("/dev/tty").context("open the terminal")?;
    terminal.write_all(question.as_bytes())?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    read.context("read the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
