package client;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Instant;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.apache.hc.client5.http.config.RequestConfig;
import org.apache.hc.client5.http.impl.classic.HttpClientBuilder;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManagerBuilder;
import org.apache.hc.client5.http.ssl.DefaultClientTlsStrategy;
import org.springframework.http.client.HttpComponentsClientHttpRequestFactory;
import org.springframework.http.converter.FormHttpMessageConverter;
import org.springframework.security.authentication.TestingAuthenticationToken;
import org.springframework.security.oauth2.client.ClientCredentialsOAuth2AuthorizedClientProvider;
import org.springframework.security.oauth2.client.OAuth2AuthorizationContext;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientProvider;
import org.springframework.security.oauth2.client.TokenExchangeOAuth2AuthorizedClientProvider;
import org.springframework.security.oauth2.client.endpoint.RestClientClientCredentialsTokenResponseClient;
import org.springframework.security.oauth2.client.endpoint.RestClientTokenExchangeTokenResponseClient;
import org.springframework.security.oauth2.client.http.OAuth2ErrorResponseErrorHandler;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.core.http.converter.OAuth2AccessTokenResponseHttpMessageConverter;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.util.LinkedMultiValueMap;
import org.springframework.util.MultiValueMap;
import org.springframework.web.client.RestClient;

/** Gets an access token with Spring Security's OAuth 2.0 client, by its documented options alone. */
public final class Main {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Pattern PEM = Pattern.compile("-----BEGIN ([A-Z ]+)-----([^-]+)-----END");

    private Main() {}

    public static void main(String[] arguments) {
        int status = 0;
        try {
            Map<String, String> flags = flags(arguments);
            OAuth2AuthorizedClient client = authorize(flags);
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("event", "access_token");
            line.put("access_token", client.getAccessToken().getTokenValue());
            line.put("token_type", client.getAccessToken().getTokenType().getValue());
            line.put("expiry", client.getAccessToken().getExpiresAt().getEpochSecond());
            line.put("scope", String.join(" ", client.getAccessToken().getScopes()));
            System.out.println(JSON.writeValueAsString(line));
        } catch (Exception error) {
            System.out.println(JSON.createObjectNode()
                    .put("event", "error")
                    .put("message", String.valueOf(error.getMessage())));
            status = 1;
        }
        System.out.flush();
        Runtime.getRuntime().halt(status);
    }

    private static OAuth2AuthorizedClient authorize(Map<String, String> flags) throws Exception {
        boolean exchanges = "exchange".equals(flags.get("with"));
        ClientRegistration registration = ClientRegistration.withRegistrationId("sojourn")
                .clientId(flags.get("client-id"))
                .clientAuthenticationMethod(
                        flags.containsKey("pair")
                                ? ClientAuthenticationMethod.TLS_CLIENT_AUTH
                                : ClientAuthenticationMethod.NONE)
                .authorizationGrantType(
                        exchanges ? AuthorizationGrantType.TOKEN_EXCHANGE : AuthorizationGrantType.CLIENT_CREDENTIALS)
                .tokenUri(flags.get("token-url"))
                .scope(flags.getOrDefault("scope", "").isEmpty() ? List.of() : List.of(flags.get("scope").split(" ")))
                .build();
        RestClient rest = RestClient.builder()
                .requestFactory(new HttpComponentsClientHttpRequestFactory(http(flags).build()))
                .messageConverters(converters -> {
                    converters.clear();
                    converters.add(new FormHttpMessageConverter());
                    converters.add(new OAuth2AccessTokenResponseHttpMessageConverter());
                })
                .defaultStatusHandler(new OAuth2ErrorResponseErrorHandler())
                .build();
        MultiValueMap<String, String> more = new LinkedMultiValueMap<>();
        for (String name : List.of("resource", "audience", "client_assertion", "client_assertion_type")) {
            if (flags.containsKey(name)) {
                more.add(name, flags.get(name));
            }
        }
        OAuth2AuthorizedClientProvider provider;
        if (exchanges) {
            RestClientTokenExchangeTokenResponseClient endpoint = new RestClientTokenExchangeTokenResponseClient();
            endpoint.setRestClient(rest);
            endpoint.addParametersConverter(request -> more);
            TokenExchangeOAuth2AuthorizedClientProvider made = new TokenExchangeOAuth2AuthorizedClientProvider();
            made.setAccessTokenResponseClient(endpoint);
            made.setSubjectTokenResolver(context -> subject(flags.get("subject-token")));
            provider = made;
        } else {
            RestClientClientCredentialsTokenResponseClient endpoint =
                    new RestClientClientCredentialsTokenResponseClient();
            endpoint.setRestClient(rest);
            endpoint.addParametersConverter(request -> more);
            ClientCredentialsOAuth2AuthorizedClientProvider made =
                    new ClientCredentialsOAuth2AuthorizedClientProvider();
            made.setAccessTokenResponseClient(endpoint);
            provider = made;
        }
        return provider.authorize(OAuth2AuthorizationContext.withClientRegistration(registration)
                .principal(new TestingAuthenticationToken("workload", null, List.of()))
                .build());
    }

    private static Jwt subject(String token) {
        try {
            byte[] claims = Base64.getUrlDecoder().decode(token.split("\\.")[1]);
            Map<?, ?> read = JSON.readValue(claims, Map.class);
            return Jwt.withTokenValue(token)
                    .header("alg", "ES256")
                    .subject((String) read.get("sub"))
                    .expiresAt(Instant.ofEpochSecond(((Number) read.get("exp")).longValue()))
                    .build();
        } catch (java.io.IOException error) {
            throw new IllegalArgumentException("-subject-token is no JWT", error);
        }
    }

    private static HttpClientBuilder http(Map<String, String> flags) throws Exception {
        HttpClientBuilder builder = HttpClients.custom().disableAutomaticRetries();
        if (flags.containsKey("socket")) {
            builder.setDefaultRequestConfig(RequestConfig.custom()
                    .setUnixDomainSocket(Path.of(flags.get("socket")))
                    .build());
        }
        if (flags.containsKey("roots")) {
            SSLContext tls = SSLContext.getInstance("TLS");
            KeyManagerFactory keys = null;
            if (flags.containsKey("pair")) {
                keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
                keys.init(pair(flags.get("pair")), new char[0]);
            }
            KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
            roots.load(null);
            int number = 0;
            for (Certificate each : certificates(Files.readString(Path.of(flags.get("roots"))))) {
                roots.setCertificateEntry("root-" + number++, each);
            }
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(roots);
            tls.init(keys == null ? null : keys.getKeyManagers(), trust.getTrustManagers(), null);
            builder.setConnectionManager(PoolingHttpClientConnectionManagerBuilder.create()
                    .setTlsSocketStrategy(new DefaultClientTlsStrategy(tls))
                    .build());
        }
        return builder;
    }

    private static KeyStore pair(String file) throws Exception {
        String text = Files.readString(Path.of(file));
        Matcher found = PEM.matcher(text);
        PrivateKey key = null;
        while (found.find()) {
            if (found.group(1).equals("PRIVATE KEY")) {
                byte[] der = Base64.getMimeDecoder().decode(found.group(2));
                key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
            }
        }
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        store.setKeyEntry("svid", key, new char[0], certificates(text).toArray(Certificate[]::new));
        return store;
    }

    private static Collection<? extends Certificate> certificates(String text) throws Exception {
        Matcher found = PEM.matcher(text);
        StringBuilder only = new StringBuilder();
        while (found.find()) {
            if (found.group(1).equals("CERTIFICATE")) {
                only.append(found.group()).append(" CERTIFICATE-----\n");
            }
        }
        return CertificateFactory.getInstance("X.509").generateCertificates(new ByteArrayInputStream(only.toString().getBytes()));
    }

    private static Map<String, String> flags(String[] arguments) {
        Map<String, String> found = new HashMap<>();
        for (int i = 0; i < arguments.length; i += 2) {
            if (!arguments[i].startsWith("-") || i + 1 == arguments.length) {
                throw new IllegalArgumentException("unexpected argument \"" + arguments[i] + "\"");
            }
            found.put(arguments[i].substring(1), arguments[i + 1]);
        }
        return found;
    }
}
