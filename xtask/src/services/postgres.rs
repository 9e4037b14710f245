//! One PostgreSQL, made anew at each start: a superuser with a password, and TLS on the same port. Beside it stands a
//! copy of the data directory as `initdb` made it: tests that need a server of their own start it with a copy of that.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use xshell::cmd;

use super::{Place, await_ready};
use crate::install::{self, Tool};
use crate::{paths, process};

pub(super) const TOOLS: &[Tool] = &[
    Tool { program: "postgres", package: "postgresql" },
    Tool { program: "initdb", package: "postgresql" },
    Tool { program: "psql", package: "postgresql-client" },
];
pub(super) const PORTS: &[&str] = &["plain"];
/// A fast shutdown. SIGTERM is the smart one, which waits for every client to leave.
/// <https://www.postgresql.org/docs/15/server-shutdown.html>
pub(super) const STOP_SIGNAL: Signal = Signal::INT;
pub(crate) const USER: &str = "postgres";
pub(crate) const PASSWORD: &str = "postgres-secret";

pub(super) fn start(place: &Place) -> Result<Child> {
    let (template, data) = (template(place), place.dir.join("data"));
    make_template(&template).context("make PostgreSQL's data directory")?;
    remove(&data)?;
    let shell = paths::shell()?;
    cmd!(shell, "cp --archive {template} {data}").quiet().run()?;
    let file = place.dir.join("postgresql.conf");
    fs::write(&file, config(place, &data)).with_context(|| format!("write {}", file.display()))?;
    let log = place.dir.join("postgres.log");
    let mut command = unprivileged(&program("postgres")?);
    let child = process::spawn(command.arg(format!("--config-file={}", file.display())), &log)?;
    await_ready(child, &log, |pid| is_ready(&data, pid))
}

pub(super) fn exports(place: &Place) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("TEST_POSTGRES_HOST", "127.0.0.1".to_owned()),
        ("TEST_POSTGRES_PORT", place.port("plain").to_string()),
        ("TEST_POSTGRES_USER", USER.to_owned()),
        ("TEST_POSTGRES_PASSWORD", PASSWORD.to_owned()),
        ("TEST_POSTGRES_PROGRAMS", programs()?.display().to_string()),
        ("TEST_POSTGRES_TEMPLATE", template(place).display().to_string()),
    ])
}

/// A program of the version that is served.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    Ok(programs()?.join(name))
}

fn programs() -> Result<PathBuf> {
    // What stands in PATH may be a link to one program of several.
    let program = install::path_of("postgres")?.canonicalize().context("find PostgreSQL's programs")?;
    Ok(program.parent().context("a program lies in a directory")?.to_path_buf())
}

fn template(place: &Place) -> PathBuf {
    place.dir.join("template")
}

/// Made at each start, because the programs may be of another version than at the last one.
fn make_template(template: &Path) -> Result<()> {
    remove(template)?;
    fs::create_dir(template).with_context(|| format!("create {}", template.display()))?;
    fs::set_permissions(template, Permissions::from_mode(0o700))?;
    if rustix::process::geteuid().is_root() {
        let shell = paths::shell()?;
        cmd!(shell, "chown {SYSTEM_USER}: {template}").quiet().run()?;
    }
    let password = template.with_extension("password");
    fs::write(&password, PASSWORD).with_context(|| format!("write {}", password.display()))?;
    let output = unprivileged(&program("initdb")?)
        .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"])
        // Nothing is lost with a fresh directory that a power failure takes.
        .arg("--no-sync")
        .arg("--pwfile")
        .arg(&password)
        .arg(template)
        .stdin(Stdio::null())
        .output()
        .context("start initdb")?;
    ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Of Debian's package.
const SYSTEM_USER: &str = "postgres";

/// PostgreSQL refuses to run as root, so root runs it as its package's user. That user may still pass directories that
/// are closed to it, as a checkout in root's home is: the one privilege that it keeps, and one that root has in most
/// containers too.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups"])
        .args(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--"])
        .arg(program);
    command
}

/// What `pg_ctl start` looks at, too: the first line is the server's process, the eighth its state.
fn is_ready(data: &Path, pid: u32) -> bool {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}

/// Sized for the bench, which is to measure no checkpoints; to the tests it makes no difference. How durable a commit
/// is stays as it comes. Connections: as many tests at once as there are processors, each with a few bridges.
fn config(place: &Place, data: &Path) -> String {
    format!(
        "data_directory = '{data}'
hba_file = '{data}/pg_hba.conf'
ident_file = '{data}/pg_ident.conf'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
ssl = on
ssl_ca_file = '{ca}'
ssl_cert_file = '{cert}'
ssl_key_file = '{key}'
max_connections = 500
shared_buffers = 256MB
max_wal_size = 8GB
",
        data = data.display(),
        port = place.port("plain"),
        ca = place.certificate("ca.pem"),
        cert = place.certificate("server.pem"),
        key = place.certificate("server.key"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_the_very_process_says() {
        let data = std::env::temp_dir().join(format!("xtask-postgres-{}", std::process::id()));
        fs::create_dir_all(&data).unwrap();
        assert!(!is_ready(&data, 77), "no file yet");
        for (state, pid, ready) in [("ready   ", 77, true), ("starting", 77, false), ("ready   ", 78, false)]
        {
            let text = format!("77\n{}\n1700000000\n20001\n\n127.0.0.1\n   1 2\n{state}\n", data.display());
            fs::write(data.join("postmaster.pid"), text).unwrap();
            assert_eq!(is_ready(&data, pid), ready, "{state} {pid}");
        }
        fs::remove_dir_all(data).unwrap();
    }
}
