//! The settings of mqtt2kafka: two YAML files, the environment in dynaconf's spelling, the command line.
//!
//! ```text
//! yaml (settings.yaml, .secrets.yaml) ─┐
//! environment, command line ───────────┴→ gather (one tree, each setting's text) ─→ mqtt, kafka (typed)
//! ```
//!
//! Rules for single values, defaults, and what is told of mistakes are those of all bridges: `sync_core::settings`.

use std::borrow::Cow;

use sync_core::program::BridgeSettings;
use sync_core::settings::{
    Effective, GeneralSettings, Inputs, Loaded, Mistakes, Reader, Setting, load_gathered,
};

mod environment;
mod gather;
mod kafka;
mod mqtt;
mod node;
mod table;
#[cfg(test)]
mod tests;
mod yaml;

pub(crate) use self::gather::CONF;
pub(crate) use self::kafka::KafkaSettings;
pub(crate) use self::mqtt::MqttSettings;
pub(crate) use self::table::help;

use self::gather::{Layers, layers};
use self::node::Node;

/// Everything that mqtt2kafka is set to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Log, admin address, stopping.
    pub(crate) general: GeneralSettings,
    /// Where messages come from.
    pub(crate) mqtt: MqttSettings,
    /// Where they go.
    pub(crate) kafka: KafkaSettings,
}

impl BridgeSettings for Settings {
    fn load(inputs: &Inputs) -> Result<Loaded<Self>, Mistakes> {
        let Layers { gathered, tree, whole } = layers(inputs);
        let mut rows = Vec::new();
        let mut loaded = load_gathered(&table::BRIDGE, inputs, gathered, |reader| {
            let mut parts = Parts { reader, tree: &tree, whole, rows: &mut rows };
            let mqtt = MqttSettings::read(&mut parts);
            let kafka = KafkaSettings::read(&mut parts);
            Self { general: GeneralSettings::read(parts.reader), mqtt, kafka }
        })?;
        loaded.effective = loaded.effective.into_iter().flat_map(|row| shown(row, &rows)).collect();
        Ok(loaded)
    }

    fn general(&self) -> &GeneralSettings {
        &self.general
    }
}

/// What settings are read from.
struct Parts<'a, 'b> {
    reader: &'a mut Reader,
    tree: &'b Node,
    whole: bool,
    /// What `check` shows in place of a whole map or list.
    rows: &'a mut Vec<Row>,
}

/// A part of a setting, for `check`.
struct Row {
    of: &'static str,
    part: Effective,
}

impl<'b> Parts<'_, 'b> {
    /// The nodes of a setting that is more than a text.
    fn node(&self, setting: &Setting) -> Option<&'b Node> {
        self.tree.at(setting.name)
    }

    /// A setting that nobody wrote and that has no default.
    fn require(&mut self, setting: &Setting) {
        // What could not be read may hold it.
        if self.whole && self.tree.at(setting.name).is_none() {
            self.reader.mistake(setting, "must be set");
        }
    }

    fn show(&mut self, setting: &'static Setting, key: &str, value: String, node: &Node) {
        let name = format!("{}{key}", setting.name).into();
        let part = Effective { name, value: node::shortened(&value), origin: node.origin.clone() };
        self.rows.push(Row { of: setting.name, part });
    }
}

/// Under its path, and in its parts where it has some.
fn shown(row: Effective, rows: &[Row]) -> Vec<Effective> {
    let parts: Vec<_> = rows.iter().filter(|part| part.of == row.name).map(|row| row.part.clone()).collect();
    if !parts.is_empty() {
        return parts;
    }
    let general = table::GENERAL.iter().find(|(_, setting)| setting.name == row.name);
    let name = general.map_or(row.name, |(path, _)| Cow::Borrowed(*path));
    vec![Effective { name, ..row }]
}
