package client;

import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.WorkloadApiClient;
import java.util.Set;

/** The JWT side: a JWT-SVID, which the agent and then the bundle validate. */
final class Jwt {
    private Jwt() {}

    static void jwt(Flags flags) throws Exception {
        String audience = flags.required("audience");
        String subject = flags.text("spiffe-id", null);
        WorkloadApiClient client = DefaultWorkloadApiClient.newClient();
        JwtSvid svid = flags.inTime(() ->
                subject == null
                        ? client.fetchJwtSvid(audience)
                        : client.fetchJwtSvid(SpiffeId.parse(subject), audience));
        Main.emit(
                "jwt",
                "token", svid.marshal(),
                "spiffe_id", svid.getSpiffeId().toString(),
                "expiry", svid.getExpiry().toInstant().getEpochSecond(),
                "hint", svid.getHint());

        JwtSvid byAgent = flags.inTime(() -> client.validateJwtSvid(svid.marshal(), audience));
        Main.emit("validated", "by", "agent", "spiffe_id", byAgent.getSpiffeId().toString());

        JwtSource source =
                DefaultJwtSource.newSource(JwtSourceOptions.builder().initTimeout(flags.timeout()).build());
        JwtSvid byBundle = JwtSvid.parseAndValidate(svid.marshal(), source, Set.of(audience));
        Main.emit("validated", "by", "bundle", "spiffe_id", byBundle.getSpiffeId().toString());
    }
}
