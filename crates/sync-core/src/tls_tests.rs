//! A certificate and its key, encrypted by OpenSSL with "opensesame", made for these tests.

use std::fs;

use super::*;

const KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhNxzZwbMVPdAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEATwL3qalVPQQBiiAsY1zcwEgZAq
BvyuYHOm+J3AF730wWl82mDKiAemu/g0Cu2lR2JAcnkFhOZLJG9ffd2SxQAPJ5TR
/P12TYTIwZgJ9ZZWuGWe+rz0elsqBSAQJOCpHT/SfoAfYxPZOhhBffyMhimd8CJL
4mkoVN6dQSzmSpuRjCwyOzsenarQjzDdFP1XxHhjHFuS8/0Rwp6qdvKVO82NAIw=
-----END ENCRYPTED PRIVATE KEY-----
";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIUKni4y158pQNjBHoeYFrr7NaxZokwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGY2xpZW50MB4XDTI2MTEyODA2NDU1NFoXDTM2MTEyNTA2NDU1
NFowETEPMA0GA1UEAwwGY2xpZW50MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
5HM9c/vQppAmmTACrgXnbmWcTwpehiE521wgWQ6rNGlU13Y5A/vLdWex3JaPjg6C
nn0Scn/XV7m00SQdK1LUHKNTMFEwHQYDVR0OBBYEFBvWqEKmwQPlnIWcnUW67rSx
xkLMMB8GA1UdIwQYMBaAFBvWqEKmwQPlnIWcnUW67rSxxkLMMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAIu2rbRH9z0QGk0Vvb8sZbMJlLeUMg3X
Vk9cMYHXMKqJAiEA+V9RIDmQJW/H3b63oviEag1NXlX2Ugbow80eD0M3w5c=
-----END CERTIFICATE-----
";

/// Loads `key` beside the certificate: what is wrong with it, or an empty text.
fn load(key: &str, password: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let [cert_path, key_path] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    fs::write(&cert_path, CERTIFICATE).unwrap();
    fs::write(&key_path, key).unwrap();
    let settings = TlsSettings { ca: None, cert: Some(cert_path), key: Some(key_path), insecure: true };
    let extras = TlsExtras { key_password: password.map(Secret::new), ..TlsExtras::default() };
    client_config_with(&settings, &extras).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn encrypted_keys() {
    assert_eq!(load(KEY, Some("opensesame")), "");
    assert_eq!(load(&format!("{CERTIFICATE}{KEY}").replace('\n', "\r\n"), Some("opensesame")), "");
    let wrong = load(KEY, Some("hunter2"));
    assert!(wrong.contains("the password may be wrong") && !wrong.contains("hunter2"), "{wrong}");
    assert!(load(KEY, None).contains("no password for it is set"));
    assert!(load(&KEY.replace("END", "NED"), Some("x")).contains("its end is missing"));
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    assert!(load(old, Some("x")).contains("openssl pkcs8 -topk8"));
    assert!(load("words", None).starts_with("TLS: private key"));
}

#[test]
fn names_of_cipher_suites() {
    let found = |names: &str| {
        let suites = cipher_suites(names)?;
        Ok::<_, String>(suites.iter().map(|suite| format!("{:?}", suite.suite())).collect::<Vec<_>>())
    };
    assert_eq!(
        found("ECDHE-RSA-AES256-GCM-SHA384:tls_aes_128_gcm_sha256, ECDHE-ECDSA-CHACHA20-POLY1305").unwrap(),
        [
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS13_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
        ]
    );
    assert_eq!(
        found("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256").unwrap(),
        ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    );
    let wrong = found("HIGH:!aNULL").unwrap_err();
    assert!(wrong.contains("\"HIGH\" is not") && wrong.contains("ECDHE-RSA-AES128-GCM-SHA256"), "{wrong}");
    assert!(found(" : ").is_err());
}

#[test]
fn only_the_named_cipher_suites_are_offered() {
    let settings = TlsSettings { insecure: true, ..TlsSettings::default() };
    let extras =
        TlsExtras { cipher_suites: cipher_suites("TLS_AES_128_GCM_SHA256").unwrap(), ..TlsExtras::default() };
    let config = client_config_with(&settings, &extras).unwrap();
    assert_eq!(config.crypto_provider().cipher_suites.len(), 1);
}
