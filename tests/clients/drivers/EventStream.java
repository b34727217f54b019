import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.stream.Stream;

/** Prints the lines of an event stream as Java's HttpClient has them. Arguments: [-H FIELD] URL. */
class EventStream {
    public static void main(String[] args) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(args[args.length - 1]));
        request.header("Accept", "text/event-stream");
        if (args[0].equals("-H")) {
            var field = args[1].split(": ", 2);
            request.header(field[0], field[1]);
        }
        HttpResponse<Stream<String>> response =
            HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofLines());
        if (response.statusCode() != 200) throw new IllegalStateException("status " + response.statusCode());
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        response.body().forEach(out::println);
        System.exit(0);
    }
}
