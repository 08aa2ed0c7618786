package client;

import com.nimbusds.jose.util.JSONObjectUtils;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.logging.Handler;
import java.util.logging.LogManager;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

/**
 * A workload that knows nothing of Sojourn: it speaks to the Workload API through the stock java-spiffe library and
 * reports what it got, one JSON object a line.
 */
public final class Main {
    interface Command {
        void run(Flags flags) throws Exception;
    }

    private static final Map<String, Command> COMMANDS = new LinkedHashMap<>();

    static {
        COMMANDS.put("x509", X509::x509);
        COMMANDS.put("watch", X509::watch);
        COMMANDS.put("jwt", Jwt::jwt);
        COMMANDS.put("bundles", X509::bundles);
        COMMANDS.put("server", MutualTls::server);
        COMMANDS.put("dial", MutualTls::dial);
    }

    private Main() {}

    public static void main(String[] arguments) {
        LogManager.getLogManager().reset();
        int status = 0;
        try {
            String name = arguments.length == 0 ? "" : arguments[0];
            Command command = COMMANDS.get(name);
            if (command == null) {
                throw new IllegalArgumentException("no subcommand \"" + name + "\": use one of " + COMMANDS.keySet());
            }
            command.run(new Flags(Arrays.copyOfRange(arguments, 1, arguments.length)));
        } catch (Exception error) {
            emitError(error);
            status = 1;
        }
        // The library's threads would keep the process alive.
        Runtime.getRuntime().halt(status);
    }

    /** Writes one line, which is out on return. The fields are names and values in turn. */
    static synchronized void emit(String event, Object... fields) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("event", event);
        for (int i = 0; i < fields.length; i += 2) {
            line.put((String) fields[i], fields[i + 1]);
        }
        System.out.println(JSONObjectUtils.toJSONString(line));
        System.out.flush();
    }

    /** Writes an error line, with the gRPC status code if there is one. */
    static void emitError(Throwable error) {
        StringBuilder message = new StringBuilder(String.valueOf(error.getMessage()));
        String code = null;
        for (Throwable each = error; each != null; each = each.getCause()) {
            if (each != error) {
                message.append(": ").append(each.getMessage());
            }
            if (each instanceof StatusRuntimeException || each instanceof StatusException) {
                code = Status.fromThrowable(each).getCode().name();
            }
        }
        if (code == null) {
            emit("error", "message", message.toString());
        } else {
            emit("error", "message", message.toString(), "code", code);
        }
    }

    /** From now on an error that the library only logs, because it tries again, becomes an error line. */
    static Logger tellLoggedErrors() {
        Logger logger = Logger.getLogger("io.spiffe");
        logger.addHandler(new Handler() {
            @Override
            public void publish(LogRecord entry) {
                if (entry.getThrown() != null) {
                    emitError(entry.getThrown());
                }
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        });
        return logger; // whoever keeps it keeps the handler: loggers are held weakly
    }
}
