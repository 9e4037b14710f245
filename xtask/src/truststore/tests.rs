//! With the trust stores that Java made for the shared Kafka, and others that its `keytool` makes here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// A directory that ends with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("xtask-truststore-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn written(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.file(name), bytes).unwrap();
        self.file(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn shared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; run: cargo xtask test"))
}

fn authority() -> PathBuf {
    Path::new(&shared("TEST_TLS_DIR")).join("ca.pem")
}

fn args(store: impl AsRef<Path>, pem: impl AsRef<Path>) -> Args {
    let (store, pem) = (store.as_ref().to_owned(), pem.as_ref().to_owned());
    Args { store, pem, password_file: None, password: None, with_key_entries: false, force: false }
}

fn refused(args: &Args, words: &[&str]) {
    let before = fs::read(&args.pem).ok();
    let error = format!("{:#}", run(args).unwrap_err());
    for word in words {
        assert!(error.contains(word), "{word:?} in {error}");
    }
    assert_eq!(fs::read(&args.pem).ok(), before, "nothing is written after an error");
}

fn good(program: &str, arguments: &[&dyn AsRef<OsStr>]) {
    let output = Command::new(program).args(arguments.iter().map(|word| word.as_ref())).output().unwrap();
    let all = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&all));
}

/// `keytool` on a store with the password `secret`.
fn keytool(store: &Path, kind: &str, arguments: &[&dyn AsRef<OsStr>]) {
    let to: [&dyn AsRef<OsStr>; 6] = [&"-keystore", &store, &"-storetype", &kind, &"-storepass", &"secret"];
    good("keytool", &[arguments, to.as_slice()].concat());
}

fn import(store: &Path, kind: &str, alias: &str, options: &[&dyn AsRef<OsStr>]) {
    let ca = authority();
    let import: [&dyn AsRef<OsStr>; 6] = [&"-importcert", &"-noprompt", &"-alias", &alias, &"-file", &ca];
    keytool(store, kind, &[options, import.as_slice()].concat());
}

fn make_pair(store: &Path, kind: &str) {
    let pair = "-genkeypair -alias own -keyalg EC -dname CN=client -keypass secret";
    let words: Vec<&str> = pair.split(' ').collect();
    let words: Vec<&dyn AsRef<OsStr>> = words.iter().map(|word| word as _).collect();
    keytool(store, kind, &words);
}

/// The certificates of a PEM file, without what surrounds them.
fn certificates(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let each = text.split(BEGIN).skip(1).map(|rest| rest.split_once(END).unwrap().0.trim().to_owned());
    each.collect()
}

#[test]
fn both_formats_become_the_authority_that_they_hold() {
    let dir = Dir::new("both");
    for variable in ["TEST_KAFKA_JKS", "TEST_KAFKA_PKCS12"] {
        let pem = dir.file(variable);
        run(&args(shared(variable), &pem)).unwrap();
        assert_eq!(certificates(&pem), certificates(&authority()), "{variable}");
        let comment = fs::read_to_string(&pem).unwrap().lines().next().unwrap().to_owned();
        assert!(comment.starts_with("# authority: CN=redis-sync test authority, until "), "{comment}");
    }
}

/// kcat is librdkafka, as the bridge is.
#[test]
fn librdkafka_trusts_the_broker_by_it_and_not_by_another() {
    let dir = Dir::new("broker");
    let pem = dir.file("ca.pem");
    run(&args(shared("TEST_KAFKA_JKS"), &pem)).unwrap();
    let connects = |ca: &Path| {
        let location = format!("ssl.ca.location={}", ca.display());
        let broker = shared("TEST_KAFKA_SSL_ADDR");
        let arguments = ["-L", "-m", "5", "-b", &broker, "-X", "security.protocol=ssl", "-X", &location];
        Command::new("kcat").args(arguments).output().unwrap().status.success()
    };
    assert!(connects(&pem));
    assert!(!connects(&authority().with_file_name("other-ca.pem")));
}

#[test]
fn every_trusted_certificate_and_no_other_is_taken() {
    let dir = Dir::new("entries");
    for kind in ["JKS", "PKCS12"] {
        let store = dir.file(kind);
        make_pair(&store, kind);
        let given = |pem: &Path| Args { password: Some("secret".into()), ..args(&store, pem) };
        refused(
            &given(&dir.file("none.pem")),
            &["no trusted certificate", "1 came with private keys", "--with-key-entries"],
        );
        import(&store, kind, "first", &[]);
        import(&store, kind, "second", &[]);
        let (pem, all) = (dir.file(&format!("{kind}.pem")), dir.file(&format!("{kind}-all.pem")));
        run(&given(&pem)).unwrap();
        let ca = certificates(&authority()).remove(0);
        assert_eq!(certificates(&pem), [ca.clone(), ca.clone()], "{kind}");
        run(&Args { with_key_entries: true, ..given(&all) }).unwrap();
        assert_eq!(certificates(&all).len(), 3, "{kind}");
    }
}

#[test]
fn pkcs12_of_other_times_and_makers() {
    let dir = Dir::new("makers");
    let legacy: [&dyn AsRef<OsStr>; 1] = [&"-J-Dkeystore.pkcs12.legacy"];
    let open: [&dyn AsRef<OsStr>; 2] =
        [&"-J-Dkeystore.pkcs12.macAlgorithm=NONE", &"-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE"];
    let (old, unprotected, other) = (dir.file("legacy.p12"), dir.file("open.p12"), dir.file("openssl.p12"));
    import(&old, "PKCS12", "a", &legacy);
    import(&unprotected, "PKCS12", "a", &open);
    good(
        "openssl",
        &[
            &"pkcs12",
            &"-export",
            &"-nokeys",
            &"-in",
            &authority(),
            &"-out",
            &other,
            &"-passout",
            &"pass:secret",
        ],
    );
    for store in [old, unprotected, other] {
        let pem = store.with_extension("pem");
        run(&Args { password: Some("secret".into()), ..args(&store, &pem) }).unwrap();
        assert_eq!(certificates(&pem), certificates(&authority()), "{}", store.display());
    }
}

#[test]
fn a_wrong_password_is_told_from_a_damaged_file() {
    let dir = Dir::new("password");
    let pem = dir.file("out.pem");
    for kind in ["JKS", "PKCS12"] {
        let store = dir.file(kind);
        import(&store, kind, "a", &[]);
        // No terminal here: what is not the usual password has to be given.
        if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            refused(&args(&store, &pem), &["is not changeit", "--password-file"]);
        }
        let wrong = Args { password: Some("wrong!".into()), ..args(&store, &pem) };
        refused(&wrong, &["the password of --password is wrong"]);
        let file = dir.written("password", "wrong!\nsecret\n");
        let wrong = Args { password_file: Some(file.clone()), ..args(&store, &pem) };
        refused(&wrong, &["the password of ", "is wrong"]);
        fs::write(&file, "secret\n").unwrap();
        run(&Args { force: true, ..wrong }).unwrap();
        fs::remove_file(&pem).unwrap();
        let bytes = fs::read(&store).unwrap();
        let cut = Args { password: Some("secret".into()), ..args(dir.written("cut", &bytes[..200]), &pem) };
        refused(&cut, &["read ", if kind == "JKS" { "it ends within" } else { "openssl cannot read it" }]);
    }
}

/// Java does so with its own format only.
#[test]
fn a_password_in_other_letters() {
    let dir = Dir::new("letters");
    let (store, pem, ca) = (dir.file("store"), dir.file("ca.pem"), authority());
    // In a file: as an argument, the locale would have a say in it.
    let (encoding, file) = ("-J-Dfile.encoding=UTF-8", dir.written("password", "Schlüssel€"));
    let import: [&dyn AsRef<OsStr>; 7] =
        [&encoding, &"-importcert", &"-noprompt", &"-alias", &"a", &"-file", &ca];
    let to: [&dyn AsRef<OsStr>; 6] = [&"-keystore", &store, &"-storetype", &"JKS", &"-storepass:file", &file];
    good("keytool", &[import.as_slice(), to.as_slice()].concat());
    run(&Args { password_file: Some(file), ..args(store, &pem) }).unwrap();
    assert_eq!(certificates(&pem), certificates(&ca));
}

#[test]
fn an_empty_store_holds_no_certificate() {
    let dir = Dir::new("empty");
    for kind in ["JKS", "PKCS12"] {
        let store = dir.file(kind);
        import(&store, kind, "a", &[]);
        keytool(&store, kind, &[&"-delete", &"-alias", &"a"]);
        let args = Args { password: Some("secret".into()), ..args(&store, dir.file("out.pem")) };
        refused(&args, &["holds no certificate"]);
    }
}

#[test]
fn what_is_no_store_is_called_what_it_is() {
    let dir = Dir::new("other");
    let pem = dir.file("out.pem");
    refused(&args(dir.file("absent"), &pem), &["read ", "absent"]);
    refused(&args(dir.written("empty", ""), &pem), &["is empty"]);
    refused(&args(dir.written("text", "hello"), &pem), &["neither a JKS nor a PKCS#12"]);
    refused(&args(dir.written("jceks", [0xce; 30]), &pem), &["JCEKS", "keytool -importkeystore"]);
    let der = dir.file("der");
    good("openssl", &[&"x509", &"-in", &authority(), &"-outform", &"DER", &"-out", &der]);
    refused(&args(&der, &pem), &["neither a JKS nor a PKCS#12", "openssl x509 -inform DER"]);
}

#[test]
fn pem_is_used_as_it_is_and_turned_around_by_keytool() {
    let dir = Dir::new("pem");
    let out = dir.file("trust.p12");
    let command = "keytool -importcert -noprompt -alias NAME -file";
    refused(&args(authority(), &out), &["is PEM already", "KAFKA_SSL_CA=", command]);
    let one = fs::read_to_string(authority()).unwrap();
    let two = dir.written("two.pem", one.repeat(2));
    refused(&args(two, &out), &["the first of its 2 certificates"]);
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let dir = Dir::new("force");
    let pem = dir.written("out.pem", "something of mine");
    let kept = args(shared("TEST_KAFKA_JKS"), &pem);
    refused(&kept, &["exists", "--force"]);
    run(&Args { force: true, ..kept }).unwrap();
    assert_eq!(certificates(&pem), certificates(&authority()));
    let store = dir.written("store", fs::read(shared("TEST_KAFKA_JKS")).unwrap());
    refused(&Args { force: true, ..args(&store, &store) }, &["both the store and the file"]);
}
