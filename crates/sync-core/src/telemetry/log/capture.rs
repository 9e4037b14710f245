//! What the tests of this crate read log lines with.
//!
//! One subscriber for the whole test process, which hands each event to the capture of its thread: with one
//! subscriber per test, a call site that another test's thread reaches first may stay silent (tracing asks only the
//! thread's own subscriber while there is just one).

use std::cell::RefCell;
use std::sync::OnceLock;

use tracing::subscriber::Interest;

use super::*;

thread_local! {
    static LINES: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

/// Lines logged so far on this thread.
pub(crate) struct Captured(Buffer);

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    /// Takes the lines, each as `LEVEL message key=value`.
    pub(crate) fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        LINES.set(None);
    }
}

/// Captures what this thread logs until the result is dropped.
pub(crate) fn capture(level: LevelFilter) -> Captured {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(PerThread)).unwrap();
        tracing::callsite::rebuild_interest_cache();
    });
    let buffer = Buffer::default();
    LINES.set(Some(lines(level, LogFormat::parse("%(levelname)s %(message)s").unwrap(), buffer.clone())));
    Captured(buffer)
}

/// The layer as it is installed, with one output.
pub(super) fn lines(level: LevelFilter, format: LogFormat, to: impl Write + Send + 'static) -> Lines {
    Lines(Arc::new(Shared {
        level: Arc::new(AtomicU8::new(rank(level))),
        own: vec!["sync_core".to_owned()],
        outputs: vec![Output::new(format, to)],
    }))
}

struct PerThread;

impl<S: Subscriber> Layer<S> for PerThread {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        LINES.with_borrow(|lines| lines.as_ref().is_some_and(|lines| lines.enabled(metadata, context)))
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        LINES.with_borrow(|lines| {
            if let Some(lines) = lines {
                lines.on_event(event, context);
            }
        });
    }
}
