//! Errors on their way between the core and the interface of plugins.

use cmf_plugin::Status;

/// A plugin's error for the core.
pub fn core_error(e: cmf_plugin::Error) -> cmf_core::Error {
    match e.status {
        Status::Cancelled => cmf_core::Error::Interrupted,
        _ => cmf_core::Error::Invalid(e.text),
    }
}

/// A core error for a plugin.
pub fn plugin_error(e: cmf_core::Error) -> cmf_plugin::Error {
    let status = match e {
        cmf_core::Error::Interrupted => Status::Cancelled,
        cmf_core::Error::Shape { .. } | cmf_core::Error::Invalid(_) => Status::Invalid,
        _ => Status::Failed,
    };
    cmf_plugin::Error { status, text: e.to_string() }
}
