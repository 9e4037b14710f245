//! Writes the code that reads Sparkplug B's protobuf.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let definition = "proto/sparkplug_b.proto";
    println!("cargo::rerun-if-changed={definition}");
    let files = protox::compile([definition], ["proto"])?;
    // Bytes are not copied out of the payload.
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
