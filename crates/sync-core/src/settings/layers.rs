//! Where values come from: command line, environment, file, defaults, in this order. Each layer settles by itself
//! which spelling of a setting counts and reads the files of its secrets; the `config` crate then lays the layers
//! over one another. What a value means, and whether it is a good one, is not known here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::report::{Mistake, Notes};
use super::shared::CONFIG_FILE;
use super::table::{Bridge, MASK, Setting};
use super::{env_file, unknown};

pub(super) const DEFAULT: &str = "default";
const COMMAND_LINE: &str = "command line";
const ENVIRONMENT: &str = "environment";
const SECRET_FILE: &str = "_FILE";
/// A settings file or secret that is longer is a mistake, such as a device or the wrong path.
const LONGEST_FILE: u64 = 1 << 20;

/// What the process was started with. It is kept for as long as the process runs, and loading again with it
/// re-reads the files.
#[derive(Clone)]
pub struct Inputs {
    command_line: Vec<(String, String)>,
    environment: BTreeMap<String, OsString>,
    default_file: PathBuf,
}

impl Inputs {
    /// The environment of this process and `./env.conf`. The only place where settings look at the process.
    pub fn from_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let environment = std::env::vars_os();
        Self::new(environment.filter_map(|(key, value)| Some((key.into_string().ok()?, value))), "./env.conf")
    }

    /// An environment, and the file that is read if it exists when no other is named.
    pub fn new<K, V>(environment: impl IntoIterator<Item = (K, V)>, default_file: impl Into<PathBuf>) -> Self
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        let environment = environment.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self {
            command_line: Vec::new(),
            environment: environment.collect(),
            default_file: default_file.into(),
        }
    }

    /// A setting from the command line, such as `LOG_LEVEL` from `--log-level`. The last of a repeated one counts.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.command_line.retain(|(earlier, _)| earlier != name);
        self.command_line.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `--config-file`, if it was given.
    pub fn config_file(self, path: Option<&Path>) -> Self {
        match path {
            Some(path) => self.set(CONFIG_FILE.name, &path.to_string_lossy()),
            None => self,
        }
    }

    /// What was said on the command line, each setting once.
    pub fn command_line(&self) -> impl Iterator<Item = (&str, &str)> {
        self.command_line.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The environment.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &std::ffi::OsStr)> {
        self.environment.iter().map(|(key, value)| (key.as_str(), value.as_os_str()))
    }

    /// A variable of the environment, as it is there.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name)?.to_str()
    }
}

/// A value as somebody wrote it, and where. The value may be a secret.
#[derive(Clone)]
pub struct Written {
    /// The key as it was spelled.
    pub key: String,
    /// Its text.
    pub value: String,
    /// As in [`super::Effective::origin`].
    pub origin: String,
}

/// The layers laid over one another: canonical name → key as written, value and origin.
pub(super) struct Stack(Map<String, Value>);

impl Stack {
    pub(super) fn get(&self, setting: &Setting) -> Option<Written> {
        let mut fields = self.0.get(&undotted(setting.name))?.clone().into_table().ok()?;
        let key = fields.remove("key")?.into_string().ok()?;
        let value = fields.remove("value")?;
        let origin = value.origin()?.to_owned();
        Some(Written { key, value: value.into_string().ok()?, origin })
    }
}

/// Reads all layers. What is wrong with a layer is noted, and the rest of it counts.
pub(super) fn stack(bridge: &Bridge, inputs: &Inputs, notes: &mut Notes) -> Stack {
    let command_line: Vec<_> = inputs
        .command_line
        .iter()
        .map(|(key, value)| Written {
            key: key.clone(),
            value: value.clone(),
            origin: COMMAND_LINE.to_owned(),
        })
        .collect();
    let environment = environment(bridge, inputs, notes);
    let file = file(inputs, &command_line, &environment, notes);

    unknown::look_through(bridge, &command_line, unknown::Whose::Ours, notes);
    unknown::look_through(bridge, &environment, unknown::Whose::Everybodys, notes);
    unknown::look_through(bridge, &file, unknown::Whose::Ours, notes);

    let layers = [&file, &environment, &command_line].map(|layer| settle(bridge, layer, notes));
    over_defaults(bridge, layers.into())
}

/// Layers over the defaults, the strongest last; each holds canonical names.
pub(super) fn over_defaults(bridge: &Bridge, layers: Vec<Vec<(&'static str, Written)>>) -> Stack {
    let defaults = bridge.settings().filter_map(|setting| {
        let value = bridge.default_of(setting)?.to_owned();
        Some((setting.name, Written { key: setting.name.to_owned(), value, origin: DEFAULT.to_owned() }))
    });
    let mut builder = config::Config::builder().add_source(Layer(defaults.collect()));
    for layer in layers {
        builder = builder.add_source(Layer(layer));
    }
    let layers = builder.build().and_then(|config| config.collect());
    Stack(layers.expect("layers are in memory and their keys are plain names"))
}

/// `config` would take a dot for a path, and each setting is one value to us.
fn undotted(name: &str) -> String {
    name.replace('.', "/")
}

/// One layer as `config` takes it: by canonical name, each setting once.
#[derive(Clone)]
struct Layer(Vec<(&'static str, Written)>);

/// Values may be secrets.
impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let entries = self.0.iter().map(|(name, written)| {
            let value = Value::new(Some(&written.origin), written.value.clone());
            let fields: Map<String, Value> =
                [("key".to_owned(), Value::from(written.key.clone())), ("value".to_owned(), value)].into();
            (undotted(name), Value::new(None, ValueKind::Table(fields)))
        });
        Ok(entries.collect())
    }
}

/// Variables that are not UTF-8 cannot be settings; where one has a setting's name, that is a mistake.
fn environment(bridge: &Bridge, inputs: &Inputs, notes: &mut Notes) -> Vec<Written> {
    let mut written = Vec::new();
    for (key, value) in &inputs.environment {
        match value.to_str() {
            Some(value) => written.push(Written {
                key: key.clone(),
                value: value.to_owned(),
                origin: ENVIRONMENT.to_owned(),
            }),
            None if unknown::is_known(bridge, key) => notes.mistake(Mistake {
                key: key.clone(),
                value: Some(MASK.to_owned()),
                origin: ENVIRONMENT.to_owned(),
                rule: "must be UTF-8".to_owned(),
            }),
            None => {}
        }
    }
    written
}

/// `--config-file`, else CONFIG_FILE, else the default file if it exists. A file that is named must exist.
fn file(
    inputs: &Inputs,
    command_line: &[Written],
    environment: &[Written],
    notes: &mut Notes,
) -> Vec<Written> {
    let named = [command_line, environment].into_iter().find_map(|layer| {
        layer.iter().find(|written| written.key == CONFIG_FILE.name && !written.value.is_empty())
    });
    let path = named.map_or(inputs.default_file.as_path(), |written| Path::new(&written.value));
    if named.is_none() && std::fs::exists(path).is_ok_and(|exists| !exists) {
        return Vec::new();
    }
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            notes.mistake(Mistake {
                key: CONFIG_FILE.name.to_owned(),
                value: Some(path.display().to_string()),
                origin: named.map_or(DEFAULT, |written| &written.origin).to_owned(),
                rule: format!("must be a readable file: {error}"),
            });
            return Vec::new();
        }
    };
    let parsed = env_file::parse(&bytes);
    let at = |line: usize| format!("file {} line {line}", path.display());
    for error in parsed.errors {
        let (key, rule) = (error.key.unwrap_or_default(), error.rule.to_owned());
        notes.mistake(Mistake { key, value: None, origin: at(error.line), rule });
    }
    for repeated in parsed.repeated {
        notes.warn(format!(
            "{} stands in {} on lines {} and {}: line {} counts",
            repeated.key,
            path.display(),
            repeated.dropped,
            repeated.kept,
            repeated.kept
        ));
    }
    let mut entries = parsed.entries;
    if let Some(index) =
        entries.iter().position(|entry| entry.key == CONFIG_FILE.name && !entry.value.is_empty())
    {
        let line = entries.remove(index).line;
        notes.warn(format!("{} ({}) has no effect in a settings file", CONFIG_FILE.name, at(line)));
    }
    entries
        .into_iter()
        .map(|entry| Written { key: entry.key, value: entry.value, origin: at(entry.line) })
        .collect()
}

/// Which of a layer's lines count: of each setting's spellings the strongest, the others with a warning.
fn settle(bridge: &Bridge, layer: &[Written], notes: &mut Notes) -> Vec<(&'static str, Written)> {
    let by_key: BTreeMap<&str, &Written> =
        layer.iter().map(|written| (written.key.as_str(), written)).collect();
    let mut settled = Vec::new();
    for setting in bridge.settings() {
        let spellings = bridge.spellings_of(setting);
        let written = |key: &str| {
            by_key.get(key).copied().filter(|written| setting.empty_counts || !written.value.is_empty())
        };
        let mut plain: Vec<&Written> = spellings.iter().filter_map(|key| written(key)).collect();
        // A port that an orchestrator injected gives way to one that somebody wrote.
        let injected = |written: &&Written| unknown::is_injected_port(&written.key, &written.value);
        if !plain.iter().all(injected) {
            plain.retain(|written| !injected(written));
        }
        let in_files: Vec<&Written> = match setting.is_secret() {
            true => spellings.iter().filter_map(|key| written(&format!("{key}{SECRET_FILE}"))).collect(),
            false => Vec::new(),
        };
        match (plain.as_slice(), in_files.as_slice()) {
            ([value, ..], [file, ..]) => notes.mistake(Mistake {
                key: file.key.clone(),
                value: Some(file.value.clone()),
                origin: file.origin.clone(),
                rule: format!(
                    "must not be set beside {} ({}): which of them counts?",
                    value.key, value.origin
                ),
            }),
            ([value, others @ ..], []) => {
                passed_over(bridge, value, others, notes);
                settled.push((setting.name, (*value).clone()));
            }
            ([], [file, others @ ..]) => {
                passed_over(bridge, file, others, notes);
                settled.extend(secret_from_file(file, notes).map(|secret| (setting.name, secret)));
            }
            ([], []) => {}
        }
    }
    settled
}

/// Two spellings of the bridge's own description that say the same are no news.
fn passed_over(bridge: &Bridge, winner: &Written, others: &[&Written], notes: &mut Notes) {
    let own = |written: &Written| bridge.spellings.contains(&written.key.as_str());
    for other in others.iter().filter(|other| other.value != winner.value || !own(winner) || !own(other)) {
        notes.warn(format!(
            "{} ({}) is passed over: {} ({}) is the same setting and counts",
            other.key, other.origin, winner.key, winner.origin
        ));
    }
}

/// The secret in the file that `<NAME>_FILE` names, without one newline at its end.
fn secret_from_file(named: &Written, notes: &mut Notes) -> Option<Written> {
    match read_secret(named) {
        Ok(secret) if secret.value.is_empty() => {
            notes.warn(format!("{} ({}): {} is empty", named.key, named.origin, named.value));
            None
        }
        Ok(secret) => Some(secret),
        Err(mistake) => {
            notes.mistake(mistake);
            None
        }
    }
}

/// What stands in the file that a value names, without one newline at its end.
pub fn read_secret(named: &Written) -> Result<Written, Mistake> {
    let wrong = |rule: String| {
        let Written { key, value, origin } = named.clone();
        Mistake { key, value: Some(value), origin, rule }
    };
    let secret = read(Path::new(&named.value))
        .map_err(|error| wrong(format!("must be the path of a readable file: {error}")))?;
    let secret =
        String::from_utf8(secret).map_err(|_| wrong("must be the path of a UTF-8 file".to_owned()))?;
    let secret =
        secret.strip_suffix('\n').map_or(secret.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    let origin = format!("file {}, named in {}", named.value, named.origin);
    Ok(Written { key: named.key.clone(), value: secret.to_owned(), origin })
}

/// A settings file or secret, whole.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    Ok(bytes)
}
