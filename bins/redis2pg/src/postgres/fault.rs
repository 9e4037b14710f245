//! What an error of PostgreSQL means for whoever sent the statement: SQLSTATE decides, in one match
//! (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).

use sqlx::Error;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// A statement that failed, or a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection broke, or is broken off by the server: whether the statement took effect is unknown.
    #[error("{0}")]
    Lost(String),
    /// Another transaction was in the way; the same statement may pass at once.
    #[error("{0}")]
    Again(String),
    /// The server cannot do it now: full, too slow, a lock that is held.
    #[error("{0}")]
    Busy(String),
    /// The server is another one by now (a standby), or the table is: to be connected to and looked at anew.
    #[error("{0}")]
    Changed(String),
    /// A row's own bytes, size or name.
    #[error("{0}")]
    Row(String),
    /// The table does not take a row like one of these: a missing partition, a check, a trigger.
    #[error("{0}")]
    Rule(String),
    /// Anything else: a human must act.
    #[error("{0}")]
    Held(String),
}

impl Fault {
    /// Whether only a human can mend it.
    pub(crate) fn needs_human(&self) -> bool {
        matches!(self, Self::Row(_) | Self::Rule(_) | Self::Held(_))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match &error {
            Error::Database(answer) => match answer.try_downcast_ref::<PgDatabaseError>() {
                Some(answer) => answered(answer),
                None => Self::Held(error.to_string()),
            },
            Error::Encode(_) => Self::Row(error.to_string()),
            Error::Io(source) => Self::Lost(in_words(source)),
            _ => Self::Lost(error.to_string()),
        }
    }
}

fn answered(answer: &PgDatabaseError) -> Fault {
    let breaks_off = matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    // The server's own name for the place, since its words may be in any language: a policy, or a view's check.
    let about_a_row = answer.routine() == Some("ExecWithCheckOptions");
    match kind(answer.code(), breaks_off, about_a_row)(words(answer)) {
        // Said inside a function: a trigger of the user's own looks for what is not there.
        Fault::Changed(reason) if answer.r#where().is_some() => Fault::Rule(reason),
        fault => fault,
    }
}

/// Which of its kinds a fault is. `breaks_off`: the server ends the connection with it.
fn kind(code: &str, breaks_off: bool, about_a_row: bool) -> fn(String) -> Fault {
    match code {
        // invalid_password and its like say what a human must do, and end the connection as well.
        _ if code.starts_with("28") => Fault::Held,
        "3D000" | "42501" if breaks_off => Fault::Held,
        // No connection more than there are.
        "53300" => Fault::Busy,
        _ if breaks_off => Fault::Lost,
        // Of a sequence and of a check: the destination's, not the row's.
        "2200H" => Fault::Held,
        "23514" => Fault::Rule,
        "54000" | "54001" => Fault::Row,
        _ if code.starts_with("22") || code.starts_with("23") => Fault::Row,
        _ if code.starts_with("40") => Fault::Again,
        "25006" => Fault::Changed,
        // Schema, table, column or constraint are not what they were.
        "3F000" | "42P01" | "42703" | "42P10" | "42804" | "0A000" => Fault::Changed,
        "42501" if about_a_row => Fault::Rule,
        // Full, out of memory, cancelled, locked, I/O.
        "55P03" | "55006" | "57014" => Fault::Busy,
        _ if code.starts_with("53") || code.starts_with("58") => Fault::Busy,
        _ if code.starts_with("08") || code.starts_with("57P") => Fault::Lost,
        // A trigger's own error, a routine's, a view's check.
        "44000" => Fault::Rule,
        _ if code.starts_with("P0") || code.starts_with("38") || code.starts_with("39") => Fault::Rule,
        _ => Fault::Held,
    }
}

/// The server's message with its code; its detail repeats the row, which is not for a log.
fn words(answer: &PgDatabaseError) -> String {
    let hint = answer.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let constraint = match answer.constraint() {
        Some(constraint) if !answer.message().contains(constraint) => format!(" [{constraint}]"),
        _ => String::new(),
    };
    format!("{}{constraint}{hint} (SQLSTATE {})", answer.message(), answer.code())
}

/// The system prints its errors with their number: `Connection refused (os error 111)`.
fn in_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_decides() {
        let check = |code: &str, expected: fn(String) -> Fault| {
            assert_eq!(kind(code, false, false)("x".into()), expected("x".into()), "{code}");
        };
        for code in ["22001", "22021", "22P02", "22P05", "22003", "23502", "23503", "23505", "54000", "54001"]
        {
            check(code, Fault::Row);
        }
        for code in ["2200H", "42501", "42883", "XX000", "0L000", "99999", "25001"] {
            check(code, Fault::Held);
        }
        for code in ["23514", "44000", "P0001", "38000"] {
            check(code, Fault::Rule);
        }
        for code in ["40001", "40P01"] {
            check(code, Fault::Again);
        }
        for code in ["53100", "53200", "53400", "55P03", "57014", "58030"] {
            check(code, Fault::Busy);
        }
        for code in ["25006", "42P01", "3F000", "42703", "42P10"] {
            check(code, Fault::Changed);
        }
        for code in ["08006", "57P01", "57P02", "57P03"] {
            check(code, Fault::Lost);
        }
    }

    #[test]
    fn what_ends_the_connection_is_lost_unless_it_says_who_must_act() {
        let check = |code: &str, expected: fn(String) -> Fault| {
            assert_eq!(kind(code, true, false)("x".into()), expected("x".into()), "{code}");
        };
        for code in ["57P01", "25P03", "XX000", "57P03"] {
            check(code, Fault::Lost);
        }
        for code in ["28P01", "28000", "3D000", "42501"] {
            check(code, Fault::Held);
        }
        check("53300", Fault::Busy);
    }

    #[test]
    fn row_level_security_is_about_a_row() {
        assert_eq!(kind("42501", false, true)("x".into()), Fault::Rule("x".into()));
    }
}
