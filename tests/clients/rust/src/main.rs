//! A workload that knows nothing of Sojourn: it speaks to the Workload API through the stock `spiffe` crate and
//! reports what it got, one JSON object a line.

mod flags;
mod jwt;
mod mtls;
mod x509;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};
use spiffe::WorkloadApiError;
use spiffe::transport::TransportError;

use crate::flags::Flags;

pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const COMMANDS: &str = "x509, watch, jwt, bundles, server or dial";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            emit_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or(format!("name a subcommand: {COMMANDS}"))?;
    let flags = Flags::parse(arguments)?;
    match name.as_str() {
        "x509" => x509::x509(&flags).await,
        "watch" => x509::watch(&flags).await,
        "bundles" => x509::bundles(&flags).await,
        "jwt" => jwt::jwt(&flags).await,
        "server" => mtls::server(&flags).await,
        "dial" => mtls::dial(&flags).await,
        _ => Err(format!("unknown subcommand {name:?}: use {COMMANDS}").into()),
    }
}

/// Writes one line, which is out on return.
pub fn emit(event: &str, mut fields: Value) {
    fields["event"] = json!(event);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{fields}").and_then(|()| out.flush()).expect("stdout is open");
}

/// Writes an error line, with the gRPC status code if there is one.
pub fn emit_error(error: &(dyn Error + 'static)) {
    let mut fields = json!({"message": whole(error)});
    if let Some(code) = code_of(error) {
        fields["code"] = json!(code);
    }
    emit("error", fields);
}

/// The error's text and those of its causes.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Names the gRPC status code behind an error as the gRPC specification does, `PERMISSION_DENIED` for example.
fn code_of(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(each) = next {
        match each.downcast_ref::<WorkloadApiError>() {
            Some(WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_)) => {
                return Some("PERMISSION_DENIED".into());
            }
            Some(WorkloadApiError::Transport(TransportError::Status(status))) => {
                return Some(screaming(&format!("{:?}", status.code())));
            }
            _ => next = each.source(),
        }
    }
    None
}

/// `InvalidArgument` as `INVALID_ARGUMENT`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}
