//! Turns `schema/` into Rust types and a descriptor set, without a protoc binary.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["schema"])?;
    // It imports all others.
    compiler.include_imports(true).open_file("ringport/v1/file.proto")?;
    // The encoded form keeps our own field options, which the decoded one has no place for.
    fs::write(out_dir.join("schema.bin"), compiler.encode_file_descriptor_set())?;
    // With the comments, which become documentation.
    let descriptors = compiler.include_source_info(true).file_descriptor_set();
    // The type names let `spec::read` find the descriptor of the message that it is asked for.
    prost_build::Config::new().enable_type_names().compile_fds(descriptors)?;
    Ok(())
}
