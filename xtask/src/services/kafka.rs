//! One Apache Kafka: a KRaft node that is broker and controller, made anew at each start, with a listener for each of
//! PLAINTEXT, SSL (a client certificate is asked for and not required), SASL_PLAINTEXT and SASL_SSL (PLAIN and SCRAM).
//! One user may do everything and one nothing; topics are not made by writing to them. Its programs come from Maven
//! Central, once for all fleets; tests that need a broker of their own start it from there, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use super::{Place, await_ready};
use crate::install::{self, Tool};
use crate::{paths, process};

/// `kcat` is for who reads what arrived: the demo, the bench, and tests.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { program: "java", package: "openjdk-17-jre-headless" },
    Tool { program: "keytool", package: "openjdk-17-jre-headless" },
    Tool { program: "mvn", package: "maven" },
    Tool { program: "kcat", package: "kcat" },
];
pub(super) const PORTS: &[&str] = &["plain", "ssl", "sasl_plaintext", "sasl_ssl", "controller"];
const VERSION: &str = "4.1.0";
const USER: &str = "tester";
const PASSWORD: &str = "tester-secret";
/// May log in, and nothing else.
const STRANGER: &str = "stranger";
/// Of the trust stores that Java's programs make of the authority's certificate.
const STORE_PASSWORD: &str = "changeit";
/// Any will do: `kafka-storage random-uuid` makes such.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qk";

pub(super) fn start(place: &Place) -> Result<Child> {
    let programs = programs()?;
    make_trust_stores(place)?;
    let data = place.dir.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
    }
    let file = place.dir.join("server.properties");
    fs::write(&file, config(place, &data)?).with_context(|| format!("write {}", file.display()))?;
    let scram = ["SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter().flat_map(|mechanism| {
        [USER, STRANGER].map(|user| format!("{mechanism}=[name={user},password={PASSWORD}]"))
    });
    let output = java(&programs)?
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config"])
        .arg(&file)
        .args(scram.flat_map(|user| ["--add-scram".to_owned(), user]))
        .output()
        .context("start java")?;
    ensure!(
        output.status.success(),
        "format its directory: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    let log = place.dir.join("kafka.log");
    let child = process::spawn(java(&programs)?.arg("kafka.Kafka").arg(&file), &log)?;
    await_ready(child, &log, |_| {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("Kafka Server started"))
    })
}

pub(super) fn exports(place: &Place) -> Result<Vec<(&'static str, String)>> {
    let store = |kind: &str| place.dir.join(format!("trust.{kind}")).display().to_string();
    Ok(vec![
        ("TEST_KAFKA_ADDR", format!("127.0.0.1:{}", place.port("plain"))),
        ("TEST_KAFKA_SSL_ADDR", format!("localhost:{}", place.port("ssl"))),
        ("TEST_KAFKA_SASL_PLAINTEXT_ADDR", format!("127.0.0.1:{}", place.port("sasl_plaintext"))),
        ("TEST_KAFKA_SASL_SSL_ADDR", format!("localhost:{}", place.port("sasl_ssl"))),
        ("TEST_KAFKA_USER", USER.to_owned()),
        ("TEST_KAFKA_STRANGER", STRANGER.to_owned()),
        ("TEST_KAFKA_PASSWORD", PASSWORD.to_owned()),
        ("TEST_KAFKA_JKS", store("jks")),
        ("TEST_KAFKA_PKCS12", store("p12")),
        ("TEST_KAFKA_STORE_PASSWORD", STORE_PASSWORD.to_owned()),
        ("TEST_KAFKA_PROGRAMS", programs()?.display().to_string()),
    ])
}

/// A small heap: what the tests and the bench send is small.
fn java(programs: &Path) -> Result<Command> {
    let mut command = Command::new(install::path_of("java")?);
    command.args(["-Xmx512m", "-cp"]).arg(programs.join("*"));
    Ok(command)
}

/// The directory of the programs, downloaded if need be.
pub(crate) fn programs() -> Result<PathBuf> {
    let dir = paths::data("kafka").join(VERSION);
    if dir.is_dir() {
        return Ok(dir);
    }
    println!("downloading Apache Kafka {VERSION} from Maven Central (43 MB): to run a real broker");
    // Made elsewhere and moved: a directory that exists is complete.
    let new = dir.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    let shell = paths::shell()?;
    shell.change_dir(&new);
    shell.write_file("pom.xml", pom())?;
    let mvn = install::path_of("mvn")?;
    cmd!(shell, "{mvn} --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory=programs")
        .quiet()
        .run()
        .context("download Apache Kafka")?;
    fs::rename(new.join("programs"), &dir).with_context(|| format!("create {}", dir.display()))?;
    let _ = fs::remove_dir_all(&new);
    Ok(dir)
}

fn pom() -> String {
    format!(
        "<project><modelVersion>4.0.0</modelVersion>
<groupId>redis-sync</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"
    )
}

/// Of the authority alone, as the administrators of brokers hand them out.
fn make_trust_stores(place: &Place) -> Result<()> {
    let shell = paths::shell()?;
    shell.change_dir(&place.dir);
    let (keytool, ca) = (install::path_of("keytool")?, place.certificate("ca.pem"));
    for (file, kind) in [("trust.jks", "JKS"), ("trust.p12", "PKCS12")] {
        let _ = fs::remove_file(place.dir.join(file));
        let to = ["-keystore", file, "-storetype", kind, "-storepass", STORE_PASSWORD];
        cmd!(shell, "{keytool} -importcert -noprompt -alias authority -file {ca} {to...}")
            .quiet()
            .ignore_stderr()
            .run()?;
    }
    Ok(())
}

fn config(place: &Place, data: &Path) -> Result<String> {
    // One file has both: the key first, then the certificate.
    let key = fs::read_to_string(place.certificate("server.key")).context("read the server's key")?;
    let certificate = fs::read_to_string(place.certificate("server.pem")).context("read its certificate")?;
    let store = place.dir.join("server-key-and-certificate.pem");
    fs::write(&store, key + &certificate).with_context(|| format!("write {}", store.display()))?;
    let mut config = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{ssl},SASL_PLAINTEXT://127.0.0.1:{sasl},\
SASL_SSL://127.0.0.1:{sasl_ssl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SSL://localhost:{ssl},SASL_PLAINTEXT://127.0.0.1:{sasl},\
SASL_SSL://localhost:{sasl_ssl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,\
CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
ssl.keystore.type=PEM
ssl.keystore.location={store}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.client.auth=requested
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USER};User:CN=redis-sync test client
",
        plain = place.port("plain"),
        ssl = place.port("ssl"),
        sasl = place.port("sasl_plaintext"),
        sasl_ssl = place.port("sasl_ssl"),
        controller = place.port("controller"),
        data = data.display(),
        store = store.display(),
        ca = place.certificate("ca.pem"),
    );
    let module = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        let users = [USER, STRANGER].map(|user| format!("user_{user}=\"{PASSWORD}\"")).join(" ");
        config += &format!(
            "listener.name.{listener}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {users};\n"
        );
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            config += &format!(
                "listener.name.{listener}.{mechanism}.sasl.jaas.config={module}.scram.ScramLoginModule required;\n"
            );
        }
    }
    Ok(config)
}
