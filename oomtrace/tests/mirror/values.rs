//! What holds for the values of every line.

use serde_json::Value;

/// Each line is identified by `stream` and `seq`, or by `id`.
pub fn check_identity(value: &Value) -> Result<(), String> {
    let has = |key: &str| value.get(key).is_some();
    if has("seq") == has("id") {
        return Err("either seq or id".into());
    }
    if value["of"].as_array().is_some_and(Vec::is_empty) {
        return Err("of is empty".into());
    }
    let found_afterwards = matches!(value["origin"].as_str(), Some("kmsg" | "cgroupfs"));
    if has("stream") == found_afterwards {
        return Err("stream must be there exactly if a program saw the event".into());
    }
    Ok(())
}

/// The time has nanoseconds, and is in UTC.
pub fn check_time(value: &Value) -> Result<(), String> {
    let time = value["time"].as_str().unwrap_or_default();
    let (whole, fraction) = time.split_once('.').ok_or("time without fraction")?;
    if whole.len() != 19 || fraction.len() != 10 || !fraction.ends_with('Z') {
        return Err(format!("time {time}"));
    }
    Ok(())
}

/// The message, and the severity, which depends on the type.
pub fn check_message(value: &Value) -> Result<(), String> {
    let kind = value["type"].as_str().unwrap_or_default();
    let severity = match kind {
        "oom_kill" | "shared_mm_kill" | "memcg_oom" | "incident" | "host_memory" => "error",
        "signal_kill"
            if ["systemd-oomd", "oomd", "earlyoom", "nohang"].map(Value::from).contains(&value["killer"]) =>
        {
            "error"
        }
        "lost" | "gap" | "limit_near" | "stuck" => "warning",
        "hooks" if value["state"] == "silent" => "warning",
        _ => "info",
    };
    if value["severity"] != severity {
        return Err(format!("severity {} of {kind}", value["severity"]));
    }
    let message = value["message"].as_str().unwrap_or_default();
    if !message.starts_with(kind) || value["message"].to_string().len() > 202 {
        return Err(format!("message {message:?}"));
    }
    Ok(())
}

pub fn check_values(value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Err("a null".into()),
        Value::Number(number) => {
            let magnitude = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
            match magnitude {
                Some(0..=9_007_199_254_740_992) => Ok(()),
                _ => Err(format!("number {number}")),
            }
        }
        Value::Array(list) if list.is_empty() => Err("an empty list".into()),
        Value::Array(list) => list.iter().try_for_each(check_values),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match value.as_object() {
            // The victim is present even if nothing is known about it.
            Some(map) if map.is_empty() && key != "victim" => Err(format!("{key} is empty")),
            _ => check_values(value),
        }),
        _ => Ok(()),
    }
}
