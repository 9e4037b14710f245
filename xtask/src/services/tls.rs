//! Certificates for the servers and their tests, made once per fleet with openssl:
//!
//! | file | what |
//! |---|---|
//! | `ca.pem` | the authority that signed everything below |
//! | `server.pem`, `server.key` | for `localhost`, 127.0.0.1 and ::1 |
//! | `client.pem`, `client.key` | a client certificate |
//! | `client-encrypted.key` | the same key, encrypted with `tester-secret` |
//! | `other-ca.pem` | an authority that signed none of them |

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::install::Tool;
use crate::paths;

pub(super) const TOOLS: &[Tool] = &[Tool { program: "openssl", package: "openssl" }];

/// The last file that is made.
const LAST: &str = "client-encrypted.key";

/// Our own, so that the system's openssl.cnf has no say.
const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = redis-sync test authority
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
";

/// Makes the certificates unless they are there.
pub(super) fn ensure(dir: &Path) -> Result<()> {
    if dir.join(LAST).is_file() {
        return Ok(());
    }
    let _ = fs::remove_dir_all(dir);
    // Made elsewhere and moved: a directory that exists is complete.
    let new = dir.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    make(&new).context("make the test certificates")?;
    fs::rename(&new, dir).with_context(|| format!("create {}", dir.display()))
}

fn make(dir: &Path) -> Result<()> {
    let shell = paths::shell()?;
    shell.change_dir(dir);
    shell.write_file("openssl.cnf", CONFIG)?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "openssl.cnf"];
    for ca in ["ca", "other-ca"] {
        cmd!(shell, "openssl req -x509 {key...} -days 3650 -extensions ca -keyout {ca}.key -out {ca}.pem")
            .quiet()
            .ignore_stderr()
            .run()?;
    }
    for (name, subject) in [("server", "/CN=localhost"), ("client", "/CN=redis-sync test client")] {
        cmd!(shell, "openssl req -new {key...} -subj {subject} -keyout {name}.key -out {name}.csr")
            .quiet()
            .ignore_stderr()
            .run()?;
        let from = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "openssl.cnf"];
        cmd!(
            shell,
            "openssl x509 -req -days 3650 {from...} -extensions {name} -in {name}.csr -out {name}.pem"
        )
        .quiet()
        .ignore_stderr()
        .run()?;
    }
    let encrypt = ["-topk8", "-v2", "aes-256-cbc", "-passout", "pass:tester-secret"];
    cmd!(shell, "openssl pkcs8 {encrypt...} -in client.key -out {LAST}").quiet().run()?;
    Ok(())
}
