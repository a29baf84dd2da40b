import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.time.Duration;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;

/** Java's HttpClient: posts that are refused before their body is read. Prints a line for each. */
public class Refused {
    public static void main(String[] arguments) throws Exception {
        System.setProperty("jdk.internal.httpclient.disableHostnameVerification", "true");
        String url = arguments[0];
        TrustManager anybody = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] {anybody}, new SecureRandom());
        for (HttpClient.Version version : HttpClient.Version.values()) {
            HttpClient client = HttpClient.newBuilder().sslContext(context).version(version).build();
            for (int size : new int[] {1000, 60_000, 300_000, 3_000_000}) {
                String said;
                boolean good = false;
                try {
                    HttpRequest.Builder post = HttpRequest.newBuilder(URI.create(url + "/guarded"))
                        .timeout(Duration.ofSeconds(20))
                        .POST(HttpRequest.BodyPublishers.ofByteArray(new byte[size]));
                    int refused = client.send(post.build(), HttpResponse.BodyHandlers.discarding()).statusCode();
                    HttpRequest get = HttpRequest.newBuilder(URI.create(url + "/open")).build();
                    int served = client.send(get, HttpResponse.BodyHandlers.discarding()).statusCode();
                    said = refused + " " + served;
                    good = refused == 401 && served == 200;
                } catch (Exception error) {
                    said = error.toString();
                }
                System.out.println("java " + version + " " + size + " " + said + (good ? " ok" : " WRONG"));
            }
        }
        System.exit(0);
    }
}
