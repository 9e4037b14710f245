//! Redis streams to Kafka topics, directly or through a durable buffer. The wiring is in the library's `program.rs`, and
//! what is sent when in `sink.rs` and `kafka/`.

use std::process::ExitCode;

fn main() -> ExitCode {
    redis2kafka::program::main()
}
