//! Checks every line against `oomtrace schema`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tracer::Line;

/// The JSON Schema of the program under test.
#[derive(Debug)]
pub struct Schema {
    #[cfg(feature = "schema")]
    validator: jsonschema::Validator,
}

impl Schema {
    /// Reads it from the program.
    pub fn of(binary: &Path) -> Result<Self> {
        let output = Command::new(binary)
            .arg("schema")
            .output()
            .with_context(|| format!("start {}", binary.display()))?;
        ensure!(output.status.success(), "oomtrace schema: {}", output.status);
        let schema: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("oomtrace schema is not JSON")?;
        Self::new(&schema)
    }

    #[cfg(feature = "schema")]
    fn new(schema: &serde_json::Value) -> Result<Self> {
        let validator =
            jsonschema::validator_for(schema).map_err(|error| anyhow::anyhow!("oomtrace schema: {error}"))?;
        Ok(Self { validator })
    }

    #[cfg(not(feature = "schema"))]
    fn new(_schema: &serde_json::Value) -> Result<Self> {
        Ok(Self {})
    }

    /// Fails if a line does not match the schema.
    #[cfg(feature = "schema")]
    pub fn check(&self, line: &Line) -> Result<()> {
        match self.validator.validate(&line.value) {
            Ok(()) => Ok(()),
            Err(error) => {
                anyhow::bail!(
                    "field {}: does not match the schema: {error}: {}",
                    error.instance_path(),
                    line.text
                )
            }
        }
    }

    /// The lines are checked elsewhere.
    #[cfg(not(feature = "schema"))]
    pub fn check(&self, _line: &Line) -> Result<()> {
        Ok(())
    }
}
