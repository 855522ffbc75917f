//! Package without code. It asks for every feature that a package of this workspace needs of a shared dependency, so
//! that Cargo compiles each dependency once: see the comment in `Cargo.toml`.
