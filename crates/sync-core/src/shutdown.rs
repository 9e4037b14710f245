//! Signals: the first SIGTERM or SIGINT asks everything to finish, a second one ends the process at once, and
//! SIGHUP asks for the settings to be read again.
//!
//! It refuses to know what finishing means: whoever does work looks at its [`Shutdown`].

use std::future::Future;
use std::io;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

/// Whether the process has been asked to stop. Cheap to clone; once asked, it stays so.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A shutdown that is asked for by hand: in tests, and where a part of the process is stopped by another.
    pub fn manual() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// Is ready once the process has been asked to stop. Holds no borrow, and may be dropped at any time.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.clone();
        async move {
            // A trigger that is gone without a word will never ask.
            if receiver.wait_for(|requested| *requested).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the process has been asked to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// Asks for a [`Shutdown`].
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Asks, once and for all.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

/// The requests to read the settings again. Several that arrive while one is being served are one.
#[derive(Debug)]
pub struct Hangups(watch::Receiver<()>);

impl Hangups {
    /// Requests made by hand, for tests.
    pub fn manual() -> (HangupTrigger, Self) {
        let (sender, receiver) = watch::channel(());
        (HangupTrigger(sender), Self(receiver))
    }

    /// The next request. May be dropped at any time: none is lost.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Makes a request as SIGHUP does.
#[derive(Debug)]
pub struct HangupTrigger(watch::Sender<()>);

impl HangupTrigger {
    /// Asks for the settings to be read again.
    pub fn hang_up(&self) {
        self.0.send_replace(());
    }
}

/// Listens to SIGTERM, SIGINT and SIGHUP from now on. To be called once, before anything that takes time: until
/// then a signal ends the process. Needs no runtime.
///
/// The first SIGTERM or SIGINT requests the shutdown; the second ends the process with exit code 1, also while
/// the program's own threads are stuck: signals have a thread of their own.
pub fn signals() -> anyhow::Result<(Shutdown, Hangups)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("start the thread that listens to signals")?;
    let guard = runtime.enter();
    let listen = |kind: SignalKind, name: &str| signal(kind).with_context(|| format!("listen to {name}"));
    let terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let hangup = listen(SignalKind::hangup(), "SIGHUP")?;
    drop(guard);
    let ((stop, shutdown), (hang_up, hangups)) = (Shutdown::manual(), Hangups::manual());
    spawn(move || runtime.block_on(listen_for_ever(terminate, interrupt, hangup, &stop, &hang_up)))
        .context("start the thread that listens to signals")?;
    Ok((shutdown, hangups))
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("signals".to_owned()).stack_size(256 * 1024).spawn(run).map(drop)
}

async fn listen_for_ever(
    mut terminate: Signal,
    mut interrupt: Signal,
    mut hangup: Signal,
    stop: &Trigger,
    hang_up: &HangupTrigger,
) {
    let mut asked = false;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => {
                hang_up.hang_up();
                continue;
            }
        };
        if asked {
            error!("{name} again: stopping at once; what is in flight will be delivered again");
            #[expect(clippy::disallowed_methods, reason = "a second signal asks for just that")]
            std::process::exit(1);
        }
        asked = true;
        info!("{name}: finishing what is in flight; a second signal stops at once");
        stop.request();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::process::{Command, Stdio};

    use futures_util::FutureExt as _;
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::telemetry::log::{LogFormat, LogSetup, install};

    #[tokio::test]
    async fn by_hand() {
        let (trigger, shutdown) = Shutdown::manual();
        let other = shutdown.clone();
        assert!(!shutdown.is_requested() && shutdown.requested().now_or_never().is_none());
        let waiting = tokio::spawn(other.requested());
        trigger.request();
        waiting.await.unwrap();
        assert!(shutdown.is_requested());
        drop(trigger);
        assert!(shutdown.requested().now_or_never().is_some());
    }

    #[test]
    fn a_trigger_that_is_gone_asks_for_nothing() {
        let (trigger, shutdown) = Shutdown::manual();
        drop(trigger);
        assert!(!shutdown.is_requested() && shutdown.requested().now_or_never().is_none());
    }

    #[test]
    fn hangups_are_taken_one_by_one_and_add_up_while_nobody_looks() {
        let (trigger, mut hangups) = Hangups::manual();
        assert!(hangups.next().now_or_never().is_none());
        trigger.hang_up();
        trigger.hang_up();
        assert!(hangups.next().now_or_never().is_some());
        assert!(hangups.next().now_or_never().is_none());
    }

    /// Not a test: what `real_signals` runs in a process of its own. Without a parent that writes to it, it ends.
    #[test]
    #[ignore = "run by real_signals"]
    fn child() {
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).unwrap() == 0 {
            return;
        }
        let (shutdown, mut hangups) = signals().unwrap();
        let (level, format) = (LevelFilter::INFO, LogFormat::parse("%(levelname)s %(message)s").ok());
        install(LogSetup { level, format, dir: None, program: "child", own_crates: &[] }).unwrap();
        let mut out = std::io::stdout();
        let mut say = |word: &str| {
            writeln!(out, "child: {word}").unwrap();
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

    #[test]
    fn real_signals() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::child", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        let kill =
            |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"go\n").unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .filter_map(|line| line.split_once("child: ").map(|(_, word)| word.to_owned()));
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
}
