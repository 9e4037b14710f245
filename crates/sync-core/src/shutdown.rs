//! stub
/// Stub.
#[derive(Clone, Debug)]
pub struct Stop(tokio::sync::watch::Receiver<bool>);
impl Stop {
    /// x
    pub fn temp(r: tokio::sync::watch::Receiver<bool>) -> Self { Self(r) }
    /// Stub.
    pub fn is_requested(&self) -> bool { *self.0.borrow() }
    /// Stub.
    pub async fn requested(&self) { let mut r = self.0.clone(); if r.wait_for(|s| *s).await.is_err() { std::future::pending().await } }
}
