//! What the system says about this process, from `/proc/self` (proc(5)). Where there is none, there is nothing
//! to report: these numbers are a convenience.

use std::fs::read_to_string;

/// Memory and processor time so far.
pub(super) struct Usage {
    /// Resident memory.
    pub(super) resident_bytes: u64,
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// Open file descriptors, connections among them.
    pub(super) open_files: u64,
}

/// `None` where the system has no `/proc`.
pub(super) fn usage() -> Option<Usage> {
    let (resident_bytes, cpu_seconds) = (
        resident(&read_to_string("/proc/self/status").ok()?)?,
        cpu(&read_to_string("/proc/self/stat").ok()?)?,
    );
    let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(Usage { resident_bytes, cpu_seconds, open_files })
}

/// The line `VmRSS:     1234 kB`.
fn resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Fields 14 and 15, in ticks of which Linux shows programs 100 a second on every processor of today. The name in
/// field 2 may hold blanks and brackets.
fn cpu(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1234 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(cpu("7 (a b) c) S 1 7 7 0 -1 4194560 4053 0 11 0 250 50 0 0 20 0 1 0"), Some(3.0));
        assert_eq!(cpu("nothing"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.open_files >= 3);
    }
}
