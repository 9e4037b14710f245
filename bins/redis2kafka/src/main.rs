//! Redis streams to Kafka topics, directly or through a durable buffer. The wiring is in the library's `program.rs`, and
//! what is sent when in `sink.rs` and `kafka/`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// librdkafka copies each record on the thread that hands it over and frees it on another one: with glibc's allocator that
/// costs a fifth of all CPU time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    redis2kafka::program::main()
}
