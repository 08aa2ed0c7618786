package client;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Flags as the Go client has them: {@code -name value}, durations as {@code 100ms} or {@code 10s}. */
final class Flags {
    private final Map<String, String> found = new HashMap<>();

    Flags(String[] arguments) {
        for (int i = 0; i < arguments.length; i += 2) {
            if (!arguments[i].startsWith("-") || i + 1 == arguments.length) {
                throw new IllegalArgumentException("unexpected argument \"" + arguments[i] + "\"");
            }
            found.put(arguments[i].substring(1), arguments[i + 1]);
        }
    }

    String text(String name, String otherwise) {
        return found.getOrDefault(name, otherwise);
    }

    String required(String name) {
        String text = found.get(name);
        if (text == null) {
            throw new IllegalArgumentException("-" + name + " is required");
        }
        return text;
    }

    int number(String name, int otherwise) {
        String text = found.get(name);
        return text == null ? otherwise : Integer.parseInt(text);
    }

    Duration duration(String name, Duration otherwise) {
        String text = found.get(name);
        if (text == null) {
            return otherwise;
        }
        if (text.endsWith("ms")) {
            return Duration.ofMillis(Long.parseLong(text.substring(0, text.length() - 2)));
        }
        if (text.endsWith("s")) {
            return Duration.ofSeconds(Long.parseLong(text.substring(0, text.length() - 1)));
        }
        throw new IllegalArgumentException("-" + name + ": \"" + text + "\" is no duration");
    }

    /** How long to wait for an answer. */
    Duration timeout() {
        return duration("timeout", Duration.ofSeconds(10));
    }

    /** Makes a call of the library, most of which know no deadline. */
    <T> T inTime(Callable<T> call) throws Exception {
        ExecutorService thread = Executors.newSingleThreadExecutor();
        try {
            return thread.submit(call).get(timeout().toMillis(), TimeUnit.MILLISECONDS);
        } catch (ExecutionException error) {
            throw error.getCause() instanceof Exception cause ? cause : error;
        } catch (TimeoutException error) {
            throw new TimeoutException("no answer from the Workload API within " + timeout());
        } finally {
            thread.shutdownNow();
        }
    }
}
