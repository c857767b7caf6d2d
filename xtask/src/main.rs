//! What a person types in this repository: `cargo xtask demo|test|bench`.

fn main() {}
