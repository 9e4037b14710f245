//! stub
/// Stub.
#[derive(Clone, Debug)]
pub struct RateLimiter;
impl RateLimiter {
    /// Stub.
    pub fn new(_: u32) -> Self { Self }
    /// Stub.
    pub async fn take(&self) {}
    /// Stub.
    pub fn spend(&self, _: u32) {}
    /// Stub.
    pub fn set_rate(&self, _: u32) {}
    /// Stub.
    pub fn observe(&self, _: std::time::Duration) {}
    /// Stub.
    pub fn overloaded(&self, _: &str) {}
}
