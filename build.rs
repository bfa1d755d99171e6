//! Turns `schema/` into Rust types and a descriptor set, without a protoc binary.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(SCHEMAS, ["schema"])?;
    fs::write(out_dir.join("schema.bin"), descriptors.encode_to_vec())?;
    // The type names let `spec::read` find the descriptor of the message that it is asked for.
    prost_build::Config::new().enable_type_names().compile_fds(descriptors)?;
    Ok(())
}

/// Files that are compiled, in the order of their reading.
const SCHEMAS: [&str; 1] = ["ringport/v1/gateway.proto"];
