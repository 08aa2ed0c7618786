//! The X.509 side: one SVID, a watch, the bundles.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use spiffe::{WorkloadApiClient, X509Source};
use tokio::time::timeout;
use x509_parser::parse_x509_certificate;

use crate::flags::Flags;
use crate::{Outcome, emit};

/// A source with its first SVID. The crate retries a refusal in silence, so on a timeout the agent is asked once more.
pub async fn new_source(limit: Duration) -> Outcome<X509Source> {
    match X509Source::builder().initial_sync_timeout(limit).build().await {
        Ok(source) => Ok(source),
        Err(error) => {
            WorkloadApiClient::connect_env().await?.fetch_x509_svid().await?;
            Err(error.into())
        }
    }
}

/// A certificate's serial number as lower-case hexadecimal without leading zeros.
pub fn serial_of(certificate: &[u8]) -> Outcome<String> {
    let (_, parsed) = parse_x509_certificate(certificate)?;
    Ok(format!("{:x}", parsed.serial))
}

pub async fn x509(flags: &Flags) -> Outcome {
    let source = new_source(flags.timeout()?).await?;
    let svid = source.svid()?;
    let leaf = svid.leaf().as_bytes();
    let (_, parsed) = parse_x509_certificate(leaf)?;
    emit(
        "svid",
        json!({
            "spiffe_id": svid.spiffe_id().to_string(),
            "serial": serial_of(leaf)?,
            "not_after": parsed.validity().not_after.timestamp(),
            "chain_len": svid.cert_chain().len(),
            "hint": svid.hint(),
        }),
    );
    Ok(())
}

/// Reads the bare stream of the crate, which does not try again: an error or the stream's end ends the watch.
pub async fn watch(flags: &Flags) -> Outcome {
    let limit = flags.timeout()?;
    let client = WorkloadApiClient::connect_env().await?;
    let mut stream = Box::pin(client.stream_x509_contexts().await?);
    for n in 1..=flags.number("updates", 1)? {
        let context = timeout(limit, stream.next())
            .await
            .map_err(|_| format!("no update from the Workload API within {limit:?}"))?
            .ok_or("the watch ended")??;
        let svids = context.svids();
        let serials: Vec<_> = svids.iter().map(|svid| serial_of(svid.leaf().as_bytes())).collect::<Outcome<_>>()?;
        emit(
            "update",
            json!({
                "n": n,
                "spiffe_ids": svids.iter().map(|svid| svid.spiffe_id().to_string()).collect::<Vec<_>>(),
                "serials": serials,
                "hints": svids.iter().map(|svid| svid.hint()).collect::<Vec<_>>(),
                "bundles": context.bundle_set().len(),
            }),
        );
    }
    Ok(())
}

pub async fn bundles(flags: &Flags) -> Outcome {
    let limit = flags.timeout()?;
    let client = WorkloadApiClient::connect_env().await?;
    let x509 = timeout(limit, client.fetch_x509_bundles()).await??;
    let jwt = timeout(limit, client.fetch_jwt_bundles()).await??;
    let certificates: BTreeMap<String, Vec<String>> = x509
        .iter()
        .map(|(domain, bundle)| {
            (domain.to_string(), bundle.authorities().iter().map(|each| hex::encode(each.as_bytes())).collect())
        })
        .collect();
    let keys: BTreeMap<String, Vec<String>> = jwt
        .iter()
        .map(|(domain, bundle)| {
            (domain.to_string(), bundle.jwt_authorities().map(|each| each.key_id().to_owned()).collect())
        })
        .collect();
    emit("bundles", json!({"x509": certificates, "jwt": keys}));
    Ok(())
}
