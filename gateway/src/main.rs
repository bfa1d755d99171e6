//! The `ringport` binary.
fn main() {}
