//! The answer as a table that fits the terminal: the worst streams first, their warnings below them, and how many are
//! not shown.

use std::io::{self, Write};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::judge::{Health, brief};
use super::look::{Look, Row, time_text};
use crate::commands::CommandError;
use crate::commands::table::Table;
use crate::commands::verify::counted;
use crate::telemetry::log::escape;

/// Where the terminal does not tell: that of the first ones.
const USUAL: Size = Size { columns: 80, lines: 24 };
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// What stands behind the end of a line, and below the last one: so nothing flickers.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    columns: usize,
    lines: usize,
}

impl Size {
    fn of_terminal() -> Self {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Self { columns: size.ws_col.into(), lines: size.ws_row.into() }
            }
            _ => USUAL,
        }
    }
}

/// Draws over what stood there. `away`: since when the source does not answer, and why.
pub(super) fn draw(
    look: &Look,
    away: Option<(DateTime<Utc>, &CommandError)>,
    every: Duration,
    out: &mut impl Write,
) -> io::Result<()> {
    let second = match away {
        None => whose(look, &format!("every {} s, end with Ctrl-C", every.as_secs_f64())),
        Some((since, error)) => format!("NO ANSWER since {}, trying again: {error}", time_text(&since)),
    };
    let size = Size::of_terminal();
    let mut text = String::from(HOME);
    // The last line stays empty: writing to its end would move all others up.
    for line in frame(look, &second, size.columns, Some(size.lines.saturating_sub(1))) {
        text.push_str(&cut(&line, size.columns));
        text.push_str(CLEAR_LINE);
        text.push('\n');
    }
    text.push_str(CLEAR_BELOW);
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes it once, below what stands there.
pub(super) fn print(look: &Look, all: bool, out: &mut impl Write) -> io::Result<()> {
    let size = Size::of_terminal();
    let lines = (!all).then(|| size.lines.saturating_sub(1));
    for line in frame(look, &whose(look, &time_text(&look.time)), size.columns, lines) {
        writeln!(out, "{}", if all { line } else { cut(&line, size.columns) })?;
    }
    out.flush()
}

/// What the numbers are of.
fn whose(look: &Look, remark: &str) -> String {
    format!("{}, group {}; {remark}", look.source, look.group)
}

/// All lines, at most so many, the second one as it is given. They may be longer than the terminal is wide.
fn frame(look: &Look, second: &str, columns: usize, lines: Option<usize>) -> Vec<String> {
    let totals = &look.totals;
    let count =
        |number: usize, word: &str| if number > 0 { format!(", {number} {word}") } else { String::new() };
    let health = [
        count(totals.critical, Health::Critical.word()),
        count(totals.warn, Health::Warn.word()),
        count(totals.ok, Health::Ok.word()),
    ]
    .concat();
    let streams = counted(u64::try_from(totals.streams).unwrap_or(u64::MAX), "stream", "streams");
    let entries = counted(totals.length, "entry", "entries");
    let letters = counted(totals.dead_letters, "dead letter", "dead letters");
    let (lag, pending) = (totals.lag_text(), totals.pending);
    let mut frame = vec![
        format!("{streams}{health}; {entries}, lag {lag}, {pending} pending, {letters}"),
        escape(second).into_owned(),
    ];
    frame.extend(
        look.problems.iter().map(|problem| format!("streams cannot be looked for: {}", escape(problem))),
    );
    let room = lines.map_or(usize::MAX, |lines| lines.saturating_sub(frame.len()));
    // Heading, and the line that says what is missing.
    let room = room.saturating_sub(2);
    let shown = look.streams.iter().scan(0_usize, |used, row| {
        *used = used.saturating_add(1 + below(row, columns).len());
        (*used <= room).then_some(row)
    });
    // The worst stream is shown also where not all of its warnings fit.
    let shown = shown.count().max(usize::from(room > 0 && !look.streams.is_empty()));
    let (shown, rest) = look.streams.split_at(shown);
    frame.extend(rows(shown, columns).into_iter().take(room.saturating_add(1)));
    if !rest.is_empty() {
        let warned = rest.iter().filter(|row| row.health != Health::Ok).count();
        let warned = if warned > 0 { format!(", {warned} of them with warnings") } else { String::new() };
        frame.push(format!("… and {} more{warned}", rest.len()));
    }
    frame
}

/// The heading, and each stream with what is below it.
fn rows(streams: &[Row], columns: usize) -> Vec<String> {
    let heading =
        ["HEALTH", "STREAM", "LENGTH", "LAG", "PENDING", "OLDEST", "CONSUMERS", "LETTERS", "FIRST", "LAST"];
    if streams.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new("", heading);
    for row in streams {
        let there = row.length.is_some();
        // What there is no group for, or no stream, is not; what cannot be asked is not known.
        let number = |number: Option<u64>, missing: &str| {
            number.map_or_else(|| missing.to_owned(), |number| number.to_string())
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            row.health.word().to_owned(),
            row.stream.clone(),
            number(row.length, "-"),
            row.lag.text(),
            number(row.pending, "-"),
            row.oldest_pending.as_ref().map_or_else(|| "-".to_owned(), |oldest| brief(oldest.age())),
            number(row.consumers, "-"),
            number(row.dead_letters, if there { "?" } else { "-" }),
            text(&row.first),
            text(&row.last),
        ]);
    }
    let mut lines = table.lines().into_iter();
    let mut all = Vec::from_iter(lines.next());
    for (row, line) in streams.iter().zip(lines) {
        all.push(line);
        all.extend(below(row, columns));
    }
    all
}

/// Warnings, on two lines where one is too short, and the groups where the own one is not alone.
fn below(row: &Row, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for warning in &row.warnings {
        let (what, action) = (warning.what_and_limit(), &warning.action);
        let line = format!("  ! {}: {}", escape(&what), escape(action));
        if line.chars().count() <= columns {
            lines.push(line);
        } else {
            lines.extend([format!("  ! {}:", escape(&what)), format!("    {}", escape(action))]);
        }
    }
    if row.groups.iter().any(|group| !group.own) {
        let groups = row.groups.iter().map(|group| {
            let own = if group.own { "*" } else { "" };
            let consumers = if group.consumers == 1 { "consumer" } else { "consumers" };
            format!(
                "{}{own} ({} {consumers}, {} pending, lag {})",
                escape(&group.name),
                group.consumers,
                group.pending,
                group.lag.text()
            )
        });
        lines.push(format!("    groups: {}", groups.collect::<Vec<_>>().join(", ")));
    }
    lines
}

/// What fits into so many columns; what was cut off shows, since half a number is another one.
fn cut(line: &str, columns: usize) -> String {
    if line.chars().map(width).sum::<usize>() <= columns {
        return line.to_owned();
    }
    let mut used = 1;
    let fits = |character: &char| {
        used += width(*character);
        used <= columns
    };
    line.chars().take_while(fits).chain(['…']).collect()
}

/// Characters of East Asian scripts and pictures take two columns.
fn width(character: char) -> usize {
    if character >= '\u{1100}' && character != '…' { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::{look, row};
    use super::super::look::{Ahead, GroupRow};
    use super::*;
    use crate::redis::statistics::Lag;

    fn other(name: &str) -> GroupRow {
        GroupRow {
            name: name.into(),
            own: false,
            consumers: 2,
            pending: 0,
            lag: Ahead::of(Some(Lag::Unknown)),
        }
    }

    #[test]
    fn the_worst_streams_and_what_is_not_shown() {
        let mut shared = row("shared", Health::Ok, Lag::Exact(9));
        shared.groups.push(other("others"));
        let mut streams = vec![row("bad\x1b[2J", Health::Critical, Lag::About(3)), shared];
        streams.extend((1..=30).map(|number| row(&format!("s{number:02}"), Health::Warn, Lag::Exact(0))));
        let look = look(streams);
        let expected = "\
32 streams, 1 CRITICAL, 30 WARN, 1 OK; 320 entries, lag ~12, 64 pending, 0 dead letters
now
HEALTH    STREAM        LENGTH  LAG  PENDING  OLDEST  CONSUMERS  LETTERS  FIRST  LAST
CRITICAL  bad\\u{1b}[2J  10      ~3   2        75 s    1          0        1-0    10-0
  ! entry 5-1 is pending for 75 s (limit 60 s): see \"the log\"
WARN      s01           10      0    2        75 s    1          0        1-0    10-0
  ! entry 5-1 is pending for 75 s (limit 60 s): see \"the log\"
… and 30 more, 29 of them with warnings";
        assert_eq!(frame(&look, "now", 80, Some(8)).join("\n"), expected);
        for lines in 4..80 {
            let frame = frame(&look, "now", 80, Some(lines));
            assert!(frame.len() <= lines, "{} of {lines}", frame.len());
        }
        let all = frame(&look, "now", 80, None);
        assert_eq!(all.len(), 2 + 1 + 2 * 31 + 2);
        let narrow = below(&look.streams[0], 40);
        let expected = ["  ! entry 5-1 is pending for 75 s (limit 60 s):", "    see \"the log\""];
        assert_eq!(narrow, expected);
        let groups = "    groups: g* (1 consumer, 2 pending, lag 9), others (2 consumers, 0 pending, lag ?)";
        assert_eq!(all.last().map(String::as_str), Some(groups));
    }

    #[test]
    fn what_is_not_there_is_a_dash_and_what_is_not_known_a_question_mark() {
        let mut gone = row("gone", Health::Critical, Lag::Exact(0));
        (gone.length, gone.pending, gone.consumers, gone.dead_letters) = (None, None, None, None);
        (gone.first, gone.last, gone.oldest_pending, gone.lag) = (None, None, None, Ahead::of(None));
        let lines = rows(&[gone], 80);
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[2..], ["-"; 8]);
        let mut alone = row("alone", Health::Warn, Lag::Unknown);
        (alone.dead_letters, alone.length) = (None, Some(3));
        let lines = rows(&[alone], 80);
        let cells: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!((cells[3], cells[8]), ("?", "?"), "{lines:?}");
        assert!(rows(&[], 80).is_empty());
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        let check = |line, columns, expected: &str| assert_eq!(cut(line, columns), expected);
        check("abc", 3, "abc");
        check("abcd", 3, "ab…");
        check("äöü…", 4, "äöü…");
        check("日本", 3, "日…");
        check("日本", 4, "日本");
    }
}
