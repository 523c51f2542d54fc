//! What this kernel can do, read from the kernel itself.

pub mod btf;
pub mod gfp;
pub mod layout;
