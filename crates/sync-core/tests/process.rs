//! What begins once per process, each in a process of its own: signals and the log. Without an argument this program
//! is the test, and starts itself again with one.

#![expect(clippy::unwrap_used, reason = "a test: what fails is to be seen")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use sync_core::shutdown::signals;
use sync_core::telemetry::log::{LogError, LogFormat, LogSetup, install};
use tracing::level_filters::LevelFilter;

#[expect(clippy::print_stdout, reason = "it is its own test runner")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["with-signals"] => with_signals(),
        ["with-log", dir] => with_log(dir),
        // Whatever the test command passes on; all of it is run all the same.
        _ => {
            signals_are_heard();
            println!("test signals_are_heard ... ok");
            lines_go_where_they_should();
            println!(
                "test lines_go_where_they_should ... ok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored"
            );
        }
    }
}

fn again(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env_remove("RUST_BACKTRACE").stderr(Stdio::piped());
    command
}

fn with_signals() {
    let (shutdown, mut hangups) = signals().unwrap();
    let (level, format) = (LevelFilter::INFO, LogFormat::parse("%(levelname)s %(message)s").ok());
    install(LogSetup { level, format, dir: None, program: "process", own_crates: &[] }).unwrap();
    let mut out = std::io::stdout();
    let mut say = |word: &str| {
        writeln!(out, "{word}").unwrap();
        out.flush().unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        say("listening");
        hangups.next().await;
        say("hung up");
        hangups.next().await;
        say("hung up");
        shutdown.requested().await;
        say("stopping");
    });
    // Stuck, as far as the runtime can tell.
    loop {
        std::thread::park();
    }
}

fn signals_are_heard() {
    let mut child = again(&["with-signals"]).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    // The shell's own: the program is not on every Debian.
    let kill = |signal: &str| {
        assert!(Command::new("sh").args(["-c", &format!("kill {signal} {pid}")]).status().unwrap().success());
    };
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().as_deref(), Some("listening"));
    kill("-HUP");
    assert_eq!(said.next().as_deref(), Some("hung up"));
    kill("-HUP");
    assert_eq!(said.next().as_deref(), Some("hung up"));
    kill("-TERM");
    assert_eq!(said.next().as_deref(), Some("stopping"));
    kill("-INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(
        log,
        "INFO SIGTERM: finishing what is in flight; a second signal stops at once\n\
         ERROR SIGINT again: stopping at once; what is in flight will be delivered again\n"
    );
}

fn with_log(dir: &str) {
    let setup = LogSetup {
        level: LevelFilter::INFO,
        format: LogFormat::parse("%(levelname)s %(name)s %(message)s").ok(),
        dir: Some(dir.into()),
        program: "redis-2-x",
        own_crates: &["shared_part", "process"],
    };
    let handle = install(setup.clone()).unwrap();
    let say = |when: &str| {
        tracing::debug!("fine {when}");
        tracing::info!(target: "redis_2_x::sink", "own {when}");
        tracing::info!(target: "shared_part", "own {when}");
        tracing::error!(target: "hyper", "foreign {when}");
        log::warn!(target: "fred", "foreign {when}");
        log::trace!(target: "fred", "foreign {when}");
        let _entered = tracing::error_span!("span").entered();
    };
    say("at INFO");
    handle.set_level(LevelFilter::DEBUG);
    say("at DEBUG");
    handle.set_level(LevelFilter::WARN);
    say("at WARN");
    let line = line!() + 1;
    let panicked = std::thread::spawn(|| panic!("two\nlines")).join();
    assert!(panicked.is_err() && matches!(install(setup), Err(LogError::Twice)));
    tracing::warn!("ends: {line} {}", handle.file().unwrap().display());
}

fn lines_go_where_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let output = again(&["with-log", dir.path().to_str().unwrap()]).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let (lines, end) = log.trim_end().rsplit_once("WARNING process ends: ").unwrap();
    let (line, path) = end.split_once(' ').unwrap();
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        [
            "INFO redis_2_x.sink own at INFO",
            "INFO shared_part own at INFO",
            "DEBUG process fine at DEBUG",
            "INFO redis_2_x.sink own at DEBUG",
            "INFO shared_part own at DEBUG",
            "ERROR hyper foreign at DEBUG",
            "WARNING fred foreign at DEBUG",
            &format!("ERROR sync_core.telemetry.log panicked: two\\nlines place={}:{line}:42", file!()),
        ]
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), log);
    let name = Path::new(path).strip_prefix(dir.path()).unwrap().to_str().unwrap();
    assert!(name.starts_with("redis-2-x-20") && name.ends_with("Z.log"), "{name}");
}
