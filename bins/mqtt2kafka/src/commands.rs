//! The operator's commands.

use std::io::{self, Read as _, Write};
use std::path::Path;

use bytes::Bytes;
use sync_core::commands::check::print_settings;
use sync_core::commands::{CommandError, Ended};
use sync_core::settings::Loaded;
use sync_core::telemetry::log::escape;

use crate::cli::{CheckArguments, DecodeArguments};
use crate::settings::Settings;
use crate::topic::{Mapped, Topics};
use crate::{check, sparkplug};

pub(crate) async fn check(
    loaded: Loaded<Settings>,
    arguments: &CheckArguments,
) -> Result<Ended, CommandError> {
    let mut out = io::stdout().lock();
    print_settings(&loaded.effective, &loaded.warnings, &mut out)?;
    let settings = &loaded.settings;
    let mut topics = Topics::new(settings.kafka.mapping.clone());
    let targets = print_routes(&mut topics, &arguments.topic, &mut out)?;
    let mut ended = if targets.len() == arguments.topic.len() { Ended::Well } else { Ended::Badly };
    if arguments.connect {
        writeln!(out)?;
        if check::connect(settings, &targets, &mut out).await? == Ended::Badly {
            ended = Ended::Badly;
        }
    }
    Ok(ended)
}

/// A line for each MQTT topic, and what collides among them. Gives the Kafka topics of those that have one.
fn print_routes(topics: &mut Topics, asked: &[String], out: &mut impl Write) -> io::Result<Vec<String>> {
    let mut targets = Vec::new();
    if !asked.is_empty() {
        writeln!(out)?;
    }
    for topic in asked {
        match topics.target(topic) {
            Ok(Mapped { topic: to, key, collision }) => {
                let key = String::from_utf8_lossy(&key);
                writeln!(out, "{} → topic {to}, key {}", escape(topic), escape(&key))?;
                if let Some(collision) = collision {
                    writeln!(out, "warning: {collision}")?;
                }
                targets.push(to.to_string());
            }
            Err(unmapped) => writeln!(out, "{} → dead letters: {unmapped}", escape(topic))?,
        }
    }
    Ok(targets)
}

/// Prints the JSON of a Sparkplug payload; no settings are needed.
pub(crate) fn decode(arguments: &DecodeArguments) -> Result<Ended, CommandError> {
    let json = json_of(&payload(arguments)?)?;
    writeln!(io::stdout().lock(), "{json}")?;
    Ok(Ended::Well)
}

fn payload(arguments: &DecodeArguments) -> Result<Vec<u8>, CommandError> {
    match (&arguments.hex, &arguments.file) {
        (Some(digits), _) => bytes_of(digits)
            .ok_or_else(|| CommandError::Usage("--hex must be pairs of hexadecimal digits".to_owned())),
        (None, Some(path)) => {
            read(path).map_err(|error| CommandError::Usage(format!("read {}: {error}", path.display())))
        }
        (None, None) => Err(CommandError::Usage("--hex or a file is needed".to_owned())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Blanks between digits do not count.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|digit| !digit.is_ascii_whitespace())
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn json_of(payload: &[u8]) -> Result<String, CommandError> {
    let decoded = sparkplug::decode(&Bytes::copy_from_slice(payload));
    decoded.map_err(|error| CommandError::Destination(format!("no Sparkplug B payload: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(bytes_of("00fF 1a\n2B"), Some(vec![0x00, 0xff, 0x1a, 0x2b]));
        assert_eq!(bytes_of(""), Some(vec![]));
        assert_eq!(bytes_of("0"), None);
        assert_eq!(bytes_of("0x10"), None);
    }
}
