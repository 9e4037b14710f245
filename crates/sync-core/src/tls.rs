//! TLS as every connection of a bridge uses it: rustls with ring, PEM files, the server verified unless told
//! otherwise.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedCipherSuite};

use crate::settings::{Secret, TlsSettings};

/// The file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {0}")]
pub struct TlsError(String);

/// Makes the process use one TLS provider everywhere. To be called first in `main`; a second call changes nothing.
pub fn install_provider() {
    let _ = ring::default_provider().install_default();
}

/// What few bridges have settings for.
#[derive(Clone, Debug, Default)]
pub struct TlsExtras {
    /// Of an encrypted private key.
    pub key_password: Option<Secret>,
    /// Offered to the server in this order; empty: all that there are.
    pub cipher_suites: Vec<SupportedCipherSuite>,
}

/// A client's side of TLS as the settings have it.
pub fn client_config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    client_config_with(settings, &TlsExtras::default())
}

/// The same, with what few bridges have settings for.
pub fn client_config_with(settings: &TlsSettings, extras: &TlsExtras) -> Result<ClientConfig, TlsError> {
    let mut provider = ring::default_provider();
    if !extras.cipher_suites.is_empty() {
        provider.cipher_suites.clone_from(&extras.cipher_suites);
    }
    let provider = Arc::new(provider);
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?;
    let builder = if settings.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(algorithms)))
    } else {
        builder.with_root_certificates(authorities(settings.ca.as_deref())?)
    };
    match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = private_key(key, extras.key_password.as_ref())
                .map_err(|error| TlsError(format!("private key {}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError(format!("client certificate {}: {error}", cert.display())))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Cipher suites by their names, those of OpenSSL or of the IANA, between colons or commas. The error says what is asked
/// for.
pub fn cipher_suites(names: &str) -> Result<Vec<SupportedCipherSuite>, String> {
    let known: Vec<(String, String, SupportedCipherSuite)> = ring::default_provider()
        .cipher_suites
        .into_iter()
        .map(|suite| {
            let iana = format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
            (openssl_name(&iana), iana, suite)
        })
        .collect();
    let mut suites = Vec::new();
    for name in names.split([':', ',']).map(str::trim).filter(|name| !name.is_empty()) {
        let is_called = |other: &String| other.eq_ignore_ascii_case(name);
        match known.iter().find(|(openssl, iana, _)| is_called(openssl) || is_called(iana)) {
            Some((.., suite)) => suites.push(*suite),
            None => {
                let known: Vec<_> = known.iter().map(|(openssl, ..)| openssl.as_str()).collect();
                return Err(format!(
                    "must be cipher suites between colons, which {name:?} is not; there are {}",
                    known.join(", ")
                ));
            }
        }
    }
    if suites.is_empty() { Err("must name at least one cipher suite".to_owned()) } else { Ok(suites) }
}

/// TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 → ECDHE-RSA-AES256-GCM-SHA384. Those of TLS 1.3 have one name.
fn openssl_name(iana: &str) -> String {
    match iana.strip_prefix("TLS_").and_then(|name| name.split_once("_WITH_")) {
        Some((exchange, cipher)) => {
            let name = format!("{exchange}-{}", cipher.replace("AES_", "AES")).replace('_', "-");
            name.strip_suffix("POLY1305-SHA256").map_or(name.clone(), |name| format!("{name}POLY1305"))
        }
        None => iana.to_owned(),
    }
}

const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----"];
/// A line in keys that were encrypted before PKCS#8 (RFC 1421): its key is derived with MD5, so nobody offers it any more.
const ENCRYPTED_OF_OLD: &str = "Proc-Type: 4,ENCRYPTED";
const CONVERT: &str = "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD.pem -out NEW.pem";

/// In whichever form OpenSSL writes one now, encrypted or not.
fn private_key(path: &Path, password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let pem = crate::settings::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&pem);
    if text.contains(ENCRYPTED_OF_OLD) {
        return Err(format!("it is encrypted in the way that OpenSSL had before PKCS#8; {CONVERT}"));
    }
    let [begin, end] = ENCRYPTED;
    let Some((_, rest)) = text.split_once(begin) else {
        return PrivateKeyDer::from_pem_slice(&pem).map_err(|error| error.to_string());
    };
    let body: String = rest.split_once(end).ok_or("its end is missing")?.0.split_ascii_whitespace().collect();
    let der = BASE64.decode(body).map_err(|_| "it is no PEM file")?;
    let password = password.ok_or("it is encrypted, and no password for it is set")?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
        .map_err(|error| format!("it is encrypted in a way that is not known here ({error}); {CONVERT}"))?;
    let key = encrypted
        .decrypt(password.expose())
        .map_err(|error| format!("it cannot be decrypted, the password may be wrong ({error})"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

fn authorities(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| TlsError(format!("CA file {}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError("the system has no certificate authorities; name a CA file".into()));
            }
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable =
        |error: &dyn std::fmt::Display| TlsError(format!("certificate file {}: {error}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(&error))?;
    if certificates.is_empty() {
        return Err(unusable(&"it holds no certificate"));
    }
    Ok(certificates)
}

/// What `…_INSECURE=true` asks for: the connection is encrypted, the server's name and issuer are not checked.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
