package client;

import io.spiffe.exception.X509SourceException;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.security.cert.CertificateEncodingException;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.logging.Logger;

/** The X.509 side: one SVID, a watch, the bundles. */
final class X509 {
    private X509() {}

    /**
     * A source with its first SVID. The library retries a refusal in silence, so on a timeout the agent is asked once
     * more: the answer says why it never came.
     */
    static DefaultX509Source newSource(Flags flags) throws Exception {
        Duration timeout = flags.timeout();
        try {
            return DefaultX509Source.newSource(
                    DefaultX509Source.X509SourceOptions.builder().initTimeout(timeout).build());
        } catch (X509SourceException error) {
            WorkloadApiClient client = DefaultWorkloadApiClient.newClient();
            flags.inTime(client::fetchX509Context);
            throw error;
        }
    }

    /** A certificate's serial number as lower-case hexadecimal without leading zeros. */
    static String serialOf(X509Certificate certificate) {
        return certificate.getSerialNumber().toString(16);
    }

    static void x509(Flags flags) throws Exception {
        X509Svid svid = newSource(flags).getX509Svid();
        Main.emit(
                "svid",
                "spiffe_id", svid.getSpiffeId().toString(),
                "serial", serialOf(svid.getLeaf()),
                "not_after", svid.getLeaf().getNotAfter().toInstant().getEpochSecond(),
                "chain_len", svid.getChain().size(),
                "hint", svid.getHint());
    }

    static void watch(Flags flags) throws Exception {
        int updates = flags.number("updates", 1);
        Logger kept = Main.tellLoggedErrors();
        LinkedBlockingQueue<Object> seen = new LinkedBlockingQueue<>();
        WorkloadApiClient client = DefaultWorkloadApiClient.newClient();
        client.watchX509Context(new Watcher<>() {
            @Override
            public void onUpdate(X509Context update) {
                seen.add(update);
            }

            @Override
            public void onError(Throwable error) {
                seen.add(error);
            }
        });
        for (int n = 1; n <= updates; n++) {
            Object next = seen.poll(flags.timeout().toMillis(), TimeUnit.MILLISECONDS);
            if (next == null) {
                throw new TimeoutException("no update from the Workload API within " + flags.timeout());
            }
            if (next instanceof Throwable error) {
                throw new Exception("the watch ended", error);
            }
            emitUpdate(n, (X509Context) next);
        }
        client.close();
        kept.getName();
    }

    private static void emitUpdate(int n, X509Context update) {
        List<String> ids = new ArrayList<>();
        List<String> serials = new ArrayList<>();
        List<String> hints = new ArrayList<>();
        for (X509Svid svid : update.getX509Svids()) {
            ids.add(svid.getSpiffeId().toString());
            serials.add(serialOf(svid.getLeaf()));
            hints.add(svid.getHint());
        }
        Main.emit(
                "update",
                "n", n,
                "spiffe_ids", ids,
                "serials", serials,
                "hints", hints,
                "bundles", update.getX509BundleSet().getBundles().size());
    }

    static void bundles(Flags flags) throws Exception {
        WorkloadApiClient client = DefaultWorkloadApiClient.newClient();
        Map<String, List<String>> certificates = new TreeMap<>();
        for (var bundle : flags.inTime(client::fetchX509Bundles).getBundles().values()) {
            List<String> encoded = new ArrayList<>();
            for (X509Certificate authority : bundle.getX509Authorities()) {
                encoded.add(hexOf(authority));
            }
            certificates.put(bundle.getTrustDomain().toString(), encoded);
        }
        Map<String, List<String>> keys = new TreeMap<>();
        for (var bundle : flags.inTime(client::fetchJwtBundles).getBundles().values()) {
            keys.put(
                    bundle.getTrustDomain().toString(),
                    new ArrayList<>(new TreeSet<>(bundle.getJwtAuthorities().keySet())));
        }
        Main.emit("bundles", "x509", certificates, "jwt", keys);
    }

    private static String hexOf(X509Certificate certificate) throws CertificateEncodingException {
        return HexFormat.of().formatHex(certificate.getEncoded());
    }
}
