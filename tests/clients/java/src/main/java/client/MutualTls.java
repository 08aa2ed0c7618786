package client;

import io.spiffe.internal.CertificateUtils;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.workloadapi.X509Source;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** Mutual TLS with java-spiffe's provider: a server that echoes, and a client that has one line echoed. */
final class MutualTls {
    private MutualTls() {}

    private static SSLContext contextFor(X509Source source, SpiffeId peer) throws Exception {
        return SpiffeSslContextFactory.getSslContext(SpiffeSslContextFactory.SslContextOptions.builder()
                .x509Source(source)
                .acceptedSpiffeIdsSupplier(() -> Set.of(peer))
                .build());
    }

    static void server(Flags flags) throws Exception {
        int timeout = Math.toIntExact(flags.timeout().toMillis());
        SSLContext context = contextFor(X509.newSource(flags), SpiffeId.parse(flags.required("peer")));
        InetSocketAddress address = addressOf(flags.text("listen", "127.0.0.1:0"));
        SSLServerSocket listener =
                (SSLServerSocket) context.getServerSocketFactory().createServerSocket(address.getPort(), 50, address.getAddress());
        listener.setNeedClientAuth(true);
        // After SIGTERM or SIGINT all is well.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
        Main.emit("listening", "addr", listener.getInetAddress().getHostAddress() + ":" + listener.getLocalPort());
        while (true) {
            SSLSocket connection = (SSLSocket) listener.accept();
            new Thread(() -> serve(connection, timeout)).start();
        }
    }

    /** Echoes one connection. A peer that fails the handshake is reported and does not stop the server. */
    private static void serve(SSLSocket connection, int timeout) {
        try (connection) {
            connection.setTcpNoDelay(true);
            connection.setSoTimeout(timeout);
            connection.startHandshake();
            X509Certificate leaf = leafOf(connection);
            Main.emit(
                    "peer",
                    "spiffe_id", CertificateUtils.getSpiffeId(leaf).toString(),
                    "serial", X509.serialOf(leaf));
            connection.getInputStream().transferTo(connection.getOutputStream());
        } catch (IOException | CertificateException error) {
            Main.emitError(error);
        }
    }

    static void dial(Flags flags) throws Exception {
        int times = flags.number("times", 1);
        Duration every = flags.duration("every", Duration.ofSeconds(1));
        int timeout = Math.toIntExact(flags.timeout().toMillis());
        InetSocketAddress address = addressOf(flags.required("addr"));
        SpiffeId peer = SpiffeId.parse(flags.required("peer"));
        X509Source source = X509.newSource(flags);
        for (int n = 1; n <= times; n++) {
            if (n > 1) {
                Thread.sleep(every.toMillis());
            }
            String line = "line " + n + " of process " + ProcessHandle.current().pid() + "\n";
            // A context of its own for each connection: Java would resume a session, and not look at the peer again.
            String serial = dial(contextFor(source, peer), address, line, timeout);
            Main.emit("dialled", "n", n, "peer_serial", serial);
        }
    }

    /**
     * Makes one connection, has one line echoed and returns the peer's serial. In TLS 1.3 only the read tells that the
     * server accepted our certificate.
     */
    private static String dial(SSLContext context, InetSocketAddress address, String line, int timeout)
            throws Exception {
        try (SSLSocket connection = (SSLSocket) context.getSocketFactory().createSocket()) {
            connection.connect(address, timeout);
            connection.setTcpNoDelay(true);
            connection.setSoTimeout(timeout);
            connection.startHandshake();
            byte[] sent = line.getBytes(StandardCharsets.UTF_8);
            connection.getOutputStream().write(sent);
            String echo = new String(connection.getInputStream().readNBytes(sent.length), StandardCharsets.UTF_8);
            if (!echo.equals(line)) {
                throw new IOException("sent \"" + line + "\", got \"" + echo + "\"");
            }
            return X509.serialOf(leafOf(connection));
        }
    }

    private static X509Certificate leafOf(SSLSocket connection) throws IOException {
        return (X509Certificate) connection.getSession().getPeerCertificates()[0];
    }

    private static InetSocketAddress addressOf(String text) throws IOException {
        int colon = text.lastIndexOf(':');
        return new InetSocketAddress(
                InetAddress.getByName(text.substring(0, colon)), Integer.parseInt(text.substring(colon + 1)));
    }
}
