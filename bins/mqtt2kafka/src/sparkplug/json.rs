//! A Sparkplug B payload as JSON: the protobuf's fields by their names, those that are present, in the order of their
//! numbers. It owns how each kind of value is written; every value is written as `value`, whatever its field.
//!
//! | a value | is |
//! |---|---|
//! | of Int8 to Int64 | signed, though protobuf carries it unsigned |
//! | Float, Double | the shortest number that reads back the same; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | an array (22 to 34) | a list; base64 if the bytes do not fit the type |
//! | other bytes, `body` | base64 (RFC 4648 §4, padded) |
//! | an extension | `{}`: its fields have no names |
//!
//! A metric without a name gets that of its alias, and one without a data type is written by that of its birth; the alias
//! stays, and the data type is not added.

use std::cell::Cell;
use std::fmt::Display;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sync_core::payload::write_json_string;

use super::Payload;
use super::array;
use super::births::{Known, Lookup};
use super::proto::payload::data_set::data_set_value::Value as Element;
use super::proto::payload::metric::Value as MetricValue;
use super::proto::payload::property_value::Value as Property;
use super::proto::payload::template::Parameter;
use super::proto::payload::template::parameter::Value as ParameterValue;
use super::proto::payload::{DataSet, MetaData, Metric, PropertySet, PropertyValue, Template};

/// The largest JSON text, in bytes: a few bytes of bits or aliases may stand for a lot of text, and Kafka takes no such
/// record anyway.
const MAX_JSON: usize = 64 << 20;

/// The JSON text would be larger than [`MAX_JSON`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("is larger than {} MiB as JSON", MAX_JSON >> 20)]
pub(crate) struct TooLarge;

/// What is known of the metrics of a payload besides what it says itself.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    device: Option<Lookup<'a>>,
    node: Option<Lookup<'a>>,
    missing: Option<&'a Cell<u64>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(device: Option<Lookup<'a>>, node: Option<Lookup<'a>>, missing: &'a Cell<u64>) -> Self {
        Self { device, node, missing: Some(missing) }
    }

    fn births(&self) -> impl Iterator<Item = Lookup<'a>> + use<'a> {
        [self.device, self.node].into_iter().flatten()
    }

    fn of_alias(&self, alias: u64) -> Option<&'a Known> {
        let known = self.births().find_map(|birth| birth.alias(alias));
        if let (None, Some(missing)) = (known, self.missing) {
            missing.set(missing.get() + 1);
        }
        known
    }

    fn datatype(&self, name: &str) -> Option<u32> {
        self.births().find_map(|birth| birth.datatype(name))
    }
}

/// Writes a payload.
pub(super) fn write(payload: &Payload, names: &Names<'_>) -> Result<Vec<u8>, TooLarge> {
    let mut out = Vec::with_capacity(64 + payload.metrics.len() * 128);
    let mut members = Members::open(&mut out);
    members.integer("timestamp", payload.timestamp);
    members.list("metrics", &payload.metrics, |out, metric| write_metric(out, metric, names))?;
    members.integer("seq", payload.seq);
    members.text("uuid", payload.uuid.as_deref());
    if let Some(body) = &payload.body {
        write_base64(members.name("body"), body)?;
    }
    members.close();
    Ok(out)
}

fn write_metric(out: &mut Vec<u8>, metric: &Metric, names: &Names<'_>) -> Result<(), TooLarge> {
    let known =
        if metric.name.is_none() { metric.alias.and_then(|alias| names.of_alias(alias)) } else { None };
    let name = metric.name.as_deref().or(known.map(|known| &*known.name));
    let datatype = || {
        metric
            .datatype
            .or_else(|| known.map_or_else(|| names.datatype(name?), |known| known.datatype))
            .unwrap_or(0)
    };
    let mut members = Members::open(out);
    members.text("name", name);
    members.integer("alias", metric.alias);
    members.integer("timestamp", metric.timestamp);
    members.integer("datatype", metric.datatype);
    members.boolean("is_historical", metric.is_historical);
    members.boolean("is_transient", metric.is_transient);
    members.boolean("is_null", metric.is_null);
    if let Some(metadata) = &metric.metadata {
        write_metadata(members.name("metadata"), metadata);
    }
    if let Some(properties) = &metric.properties {
        write_properties(members.name("properties"), properties)?;
    }
    if let Some(value) = &metric.value {
        let out = members.name("value");
        match value {
            MetricValue::IntValue(value) => write_int(out, *value, datatype()),
            MetricValue::LongValue(value) => write_long(out, *value, datatype()),
            MetricValue::FloatValue(value) => write_float(out, *value),
            MetricValue::DoubleValue(value) => write_double(out, *value),
            MetricValue::BooleanValue(value) => write_boolean(out, *value),
            MetricValue::StringValue(value) => write_json_string(out, value),
            MetricValue::BytesValue(value) => {
                let datatype = datatype();
                if out.len() + value.len() * array::growth(datatype) > MAX_JSON {
                    return Err(TooLarge);
                }
                if !array::write(out, datatype, value) {
                    write_base64(out, value)?;
                }
            }
            MetricValue::DatasetValue(value) => write_dataset(out, value)?,
            MetricValue::TemplateValue(value) => write_template(out, value, names)?,
            MetricValue::ExtensionValue(_) => out.extend_from_slice(b"{}"),
        }
    }
    members.close();
    Ok(())
}

fn write_metadata(out: &mut Vec<u8>, metadata: &MetaData) {
    let mut members = Members::open(out);
    members.boolean("is_multi_part", metadata.is_multi_part);
    members.text("content_type", metadata.content_type.as_deref());
    members.integer("size", metadata.size);
    members.integer("seq", metadata.seq);
    members.text("file_name", metadata.file_name.as_deref());
    members.text("file_type", metadata.file_type.as_deref());
    members.text("md5", metadata.md5.as_deref());
    members.text("description", metadata.description.as_deref());
    members.close();
}

fn write_properties(out: &mut Vec<u8>, set: &PropertySet) -> Result<(), TooLarge> {
    let mut members = Members::open(out);
    members.list("keys", &set.keys, |out, key| {
        write_json_string(out, key);
        Ok(())
    })?;
    members.list("values", &set.values, write_property)?;
    members.close();
    Ok(())
}

fn write_property(out: &mut Vec<u8>, property: &PropertyValue) -> Result<(), TooLarge> {
    let datatype = property.r#type.unwrap_or(0);
    let mut members = Members::open(out);
    members.integer("type", property.r#type);
    members.boolean("is_null", property.is_null);
    if let Some(value) = &property.value {
        let out = members.name("value");
        match value {
            Property::IntValue(value) => write_int(out, *value, datatype),
            Property::LongValue(value) => write_long(out, *value, datatype),
            Property::FloatValue(value) => write_float(out, *value),
            Property::DoubleValue(value) => write_double(out, *value),
            Property::BooleanValue(value) => write_boolean(out, *value),
            Property::StringValue(value) => write_json_string(out, value),
            Property::PropertysetValue(set) => write_properties(out, set)?,
            Property::PropertysetsValue(sets) => {
                let mut members = Members::open(out);
                members.list("propertyset", &sets.propertyset, write_properties)?;
                members.close();
            }
            Property::ExtensionValue(_) => out.extend_from_slice(b"{}"),
        }
    }
    members.close();
    Ok(())
}

fn write_dataset(out: &mut Vec<u8>, dataset: &DataSet) -> Result<(), TooLarge> {
    let mut members = Members::open(out);
    members.integer("num_of_columns", dataset.num_of_columns);
    members.list("columns", &dataset.columns, |out, column| {
        write_json_string(out, column);
        Ok(())
    })?;
    members.list("types", &dataset.types, |out, datatype| {
        write_integer(out, *datatype);
        Ok(())
    })?;
    members.list("rows", &dataset.rows, |out, row| {
        let mut members = Members::open(out);
        let mut types = dataset.types.iter();
        members.list("elements", &row.elements, |out, element| {
            let datatype = types.next().copied().unwrap_or(0);
            let mut members = Members::open(out);
            if let Some(value) = &element.value {
                let out = members.name("value");
                match value {
                    Element::IntValue(value) => write_int(out, *value, datatype),
                    Element::LongValue(value) => write_long(out, *value, datatype),
                    Element::FloatValue(value) => write_float(out, *value),
                    Element::DoubleValue(value) => write_double(out, *value),
                    Element::BooleanValue(value) => write_boolean(out, *value),
                    Element::StringValue(value) => write_json_string(out, value),
                    Element::ExtensionValue(_) => out.extend_from_slice(b"{}"),
                }
            }
            members.close();
            Ok(())
        })?;
        members.close();
        Ok(())
    })?;
    members.close();
    Ok(())
}

fn write_template(out: &mut Vec<u8>, template: &Template, names: &Names<'_>) -> Result<(), TooLarge> {
    let mut members = Members::open(out);
    members.text("version", template.version.as_deref());
    members.list("metrics", &template.metrics, |out, metric| write_metric(out, metric, names))?;
    members.list("parameters", &template.parameters, |out, parameter| {
        write_parameter(out, parameter);
        Ok(())
    })?;
    members.text("template_ref", template.template_ref.as_deref());
    members.boolean("is_definition", template.is_definition);
    members.close();
    Ok(())
}

fn write_parameter(out: &mut Vec<u8>, parameter: &Parameter) {
    let datatype = parameter.r#type.unwrap_or(0);
    let mut members = Members::open(out);
    members.text("name", parameter.name.as_deref());
    members.integer("type", parameter.r#type);
    if let Some(value) = &parameter.value {
        let out = members.name("value");
        match value {
            ParameterValue::IntValue(value) => write_int(out, *value, datatype),
            ParameterValue::LongValue(value) => write_long(out, *value, datatype),
            ParameterValue::FloatValue(value) => write_float(out, *value),
            ParameterValue::DoubleValue(value) => write_double(out, *value),
            ParameterValue::BooleanValue(value) => write_boolean(out, *value),
            ParameterValue::StringValue(value) => write_json_string(out, value),
            ParameterValue::ExtensionValue(_) => out.extend_from_slice(b"{}"),
        }
    }
    members.close();
}

/// An `int_value`. Senders fill the upper bits of a negative Int8 or Int16 with ones or with zeros; a number that fits its
/// type in neither way is written as it is.
fn write_int(out: &mut Vec<u8>, value: u32, datatype: u32) {
    match datatype {
        1 if value <= 0xff => write_integer(out, value as u8 as i8),
        2 if value <= 0xffff => write_integer(out, value as u16 as i16),
        1..=3 => write_integer(out, value as i32),
        _ => write_integer(out, value),
    }
}

/// A `long_value`; some senders put the smaller types there too.
fn write_long(out: &mut Vec<u8>, value: u64, datatype: u32) {
    match (datatype, u32::try_from(value)) {
        (1..=3, Ok(value)) => write_int(out, value, datatype),
        (1..=4, _) => write_integer(out, value as i64),
        _ => write_integer(out, value),
    }
}

pub(super) fn write_integer(out: &mut Vec<u8>, value: impl Display) {
    // Writing into memory does not fail.
    let _ = write!(out, "{value}");
}

pub(super) fn write_float(out: &mut Vec<u8>, value: f32) {
    match not_finite(f64::from(value)) {
        Some(name) => out.extend_from_slice(name),
        None => drop(serde_json::to_writer(out, &value)),
    }
}

pub(super) fn write_double(out: &mut Vec<u8>, value: f64) {
    match not_finite(value) {
        Some(name) => out.extend_from_slice(name),
        None => drop(serde_json::to_writer(out, &value)),
    }
}

fn not_finite(value: f64) -> Option<&'static [u8]> {
    match value {
        f64::INFINITY => Some(b"\"Infinity\""),
        f64::NEG_INFINITY => Some(b"\"-Infinity\""),
        _ => value.is_nan().then_some(b"\"NaN\""),
    }
}

fn write_boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), TooLarge> {
    let start = out.len() + 1;
    let length = base64::encoded_len(bytes.len(), true).ok_or(TooLarge)?;
    if start + length > MAX_JSON {
        return Err(TooLarge);
    }
    out.push(b'"');
    out.resize(start + length, 0);
    // The room is what it takes.
    let _ = BASE64.encode_slice(bytes, &mut out[start..]);
    out.push(b'"');
    Ok(())
}

/// The members of an object that is being written.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    /// `{` before the first.
    before: u8,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(&[self.before, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.before = b',';
        self.out
    }

    fn integer(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            write_integer(self.name(name), value);
        }
    }

    fn boolean(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            write_boolean(self.name(name), value);
        }
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            write_json_string(self.name(name), value);
        }
    }

    /// A repeated field is present if there is one at least.
    fn list<T>(
        &mut self,
        name: &str,
        items: &[T],
        mut write: impl FnMut(&mut Vec<u8>, &T) -> Result<(), TooLarge>,
    ) -> Result<(), TooLarge> {
        if items.is_empty() {
            return Ok(());
        }
        let out = self.name(name);
        let mut before = b'[';
        for item in items {
            out.push(before);
            write(out, item)?;
            before = b',';
            if out.len() > MAX_JSON {
                return Err(TooLarge);
            }
        }
        out.push(b']');
        Ok(())
    }

    fn close(self) {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}
