//! The JWT side: a JWT-SVID, which the agent and then the bundle validate.

use serde_json::json;
use spiffe::{JwtSource, JwtSvid, SpiffeId, WorkloadApiClient};
use tokio::time::timeout;

use crate::flags::Flags;
use crate::{Outcome, emit};

pub async fn jwt(flags: &Flags) -> Outcome {
    let audience = flags.required("audience")?;
    let subject = flags.text("spiffe-id").map(SpiffeId::new).transpose()?;
    let limit = flags.timeout()?;

    let client = WorkloadApiClient::connect_env().await?;
    let svid = timeout(limit, client.fetch_jwt_svid([audience], subject.as_ref())).await??;
    emit(
        "jwt",
        json!({
            "token": svid.token(),
            "spiffe_id": svid.spiffe_id().to_string(),
            "expiry": svid.expiry().unix_timestamp(),
            "hint": svid.hint(),
        }),
    );

    let by_agent = timeout(limit, client.validate_jwt_token(audience, svid.token())).await??;
    emit("validated", json!({"by": "agent", "spiffe_id": by_agent.spiffe_id().to_string()}));

    let source = JwtSource::builder().initial_sync_timeout(limit).build().await?;
    let by_bundle = JwtSvid::parse_and_validate(svid.token(), &source, &[audience])?;
    emit("validated", json!({"by": "bundle", "spiffe_id": by_bundle.spiffe_id().to_string()}));
    Ok(())
}
