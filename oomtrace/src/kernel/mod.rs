//! What this kernel can do, read from the kernel itself.

pub mod gfp;
