//! stub
use crate::{cli::Simulate, failure::Failure};
/// x
pub fn simulate(_: &Simulate) -> Result<(), Failure> {
    Ok(())
}
/// x
pub fn victim(_: usize) -> Result<(), Failure> {
    Ok(())
}
